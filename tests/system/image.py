"""The images of the Dockerfile, built without a container engine: Debian's mmdebstrap makes the base, Debian's buildah the rest.

What this machine has of its own for reaching others (a bundle of authorities, pip's configuration) is in the base of the tests
only.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.stack import debian

ROOT = Path(__file__).resolve().parents[2]
#: Who runs in the image.
USER = 10001
#: The packages that the base has beside Debian's smallest set: what `python:slim` has of them.
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
#: What no program of the base reads; each image's files are copied several times.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
#: Where Debian keeps the authorities it trusts.
AUTHORITIES = Path("etc/ssl/certs/ca-certificates.crt")
#: What the base takes over of pip's configuration.
PIP_SETTINGS = ("index-url", "extra-index-url", "proxy", "trusted-host", "timeout")
#: Longest that one step may take, seconds.
BUILD_PATIENCE = 900
#: Others are tested at the same time, so building stands back.
NICE = ("nice", "-n", "5")


class CannotBuild(Exception):
    """This machine cannot build images; the message says why."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its files, and what it says about how to run."""

    root: Path
    config: Mapping[str, object]

    def command(
        self, words: Sequence[str], environment: Mapping[str, str], *, writable: bool = False
    ) -> list[str]:
        """What runs a program of the image as an engine would: its root read-only, two folders in memory, no capabilities.

        The process that this starts becomes the program, so that signals reach it.
        """
        folders = (
            []
            if writable
            else [f"mount -t tmpfs -o uid={USER},gid={USER},mode=0750 tmpfs {self.root}/run/djps"]
        )
        mounts = [
            f"mount --bind {self.root} {self.root}",
            *([] if writable else [f"mount -o remount,bind,ro {self.root}"]),
            f"mount -t proc proc {self.root}/proc",
            f"mount --rbind /dev {self.root}/dev",
            f"mount -t tmpfs -o mode=1777 tmpfs {self.root}/tmp",  # noqa: S108 - a mount
            *folders,
        ]
        script = "; ".join(["set -e", *mounts, 'exec "$@"'])
        inside = self._inside([*(self.config["Entrypoint"] or ()), *words], environment)
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *inside]

    def beside(self, pid: int, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        """What runs a program among the files of one that runs already."""
        return ["nsenter", "--target", str(pid), "--mount", *self._inside(words, environment)]

    def _inside(self, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        given = [*(self.config["Env"] or ()), *(f"{name}={value}" for name, value in environment.items())]
        return [
            *("chroot", f"--userspec={self.config['User']}", "--groups=", str(self.root)),
            *("/usr/bin/env", "-i", f"--chdir={self.config['WorkingDir']}", "HOME=/tmp", *given),
            *words,
        ]


class Workshop:
    """Where images are built; its folder holds all that comes of it.

    Raises:
        CannotBuild: a program is missing, or this user may not.
    """

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            raise CannotBuild("only root may build a base with mmdebstrap")
        try:
            self._mmdebstrap = debian.program("mmdebstrap", "mmdebstrap")
            self._buildah = debian.program("buildah", "buildah")
        except debian.ProgramMissing as missing:
            raise CannotBuild(str(missing)) from missing
        _try("unshare", "--mount", "--propagation", "private", "true")
        self._folder = folder
        driver = "overlay" if _can_overlay(folder) else "vfs"
        self._store = [
            "--root",
            f"{folder}/store",
            "--runroot",
            f"{folder}/run",
            f"--storage-driver={driver}",
        ]
        self._base()

    def _base(self) -> None:
        codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
        container = self._run("from", "scratch")
        base = Path(self._run("mount", container))
        _run(
            *(str(self._mmdebstrap), "--quiet", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}"),
            *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
            *(codename, str(base), *_mirror(codename)),
        )
        (base / "usr/bin/python").symlink_to("python3")
        shutil.copyfile(ssl.get_default_verify_paths().cafile or f"/{AUTHORITIES}", base / AUTHORITIES)
        (base / "etc/pip.conf").write_text(pip_configuration(_pip_settings()))
        self._run("commit", container, "djps-base")
        self._run("rm", container)

    def build(self, target: str) -> Image:
        """Builds one of the Dockerfile's images, and lays out its files."""
        self._run(
            *("bud", "--isolation", "chroot", "--pull-never", "--format", "docker"),
            *("--build-arg", "BASE=localhost/djps-base", "--target", target, "--tag", target),
            *("--file", "ops/docker/Dockerfile", "."),
        )
        container = self._run("from", "--pull-never", f"localhost/{target}")
        said = json.loads(self._run("inspect", container))
        return Image(Path(self._run("mount", container)), said["Docker"]["config"])

    def _run(self, *words: str) -> str:
        return _run(str(self._buildah), *self._store, *words)

    def close(self) -> None:
        """Unmounts what was laid out."""
        self._run("umount", "--all")


def _can_overlay(folder: Path) -> bool:
    """True if a folder can be mounted over others here; without it each layer is a copy of all below it."""
    for name in ("below", "above", "work", "merged"):
        (folder / name).mkdir()
    options = f"lowerdir={folder}/below,upperdir={folder}/above,workdir={folder}/work"
    try:
        # In a mount namespace of its own, which ends with it.
        _try(
            *("unshare", "--mount", "--propagation", "private"),
            *("mount", "-t", "overlay", "overlay", "-o", options, f"{folder}/merged"),
        )
    except CannotBuild:
        return False
    return True


def _try(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    if done.returncode != 0:
        raise CannotBuild(f"{' '.join(words)}: {done.stderr.strip()}")


def _run(*words: str) -> str:
    done = subprocess.run(
        [*NICE, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=BUILD_PATIENCE
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


def _mirror(codename: str) -> list[str]:
    """The mirror that this machine's apt uses; none: mmdebstrap has one of its own."""
    said = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            f"Codename: {codename}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    ).stdout.split()
    return said[:1]


def _pip_settings() -> dict[str, str]:
    """Pip's settings on this machine by name, wherever they are made; the environment's come first."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    found: dict[str, str] = {}
    for line in said.splitlines():
        name, _, value = line.partition("=")
        short = name.rpartition(".")[2]
        if short not in found or name.startswith(":env:"):
            found[short] = value.strip("'").replace("\\n", " ")
    return found


def pip_configuration(settings: Mapping[str, str]) -> str:
    """The base's pip.conf: how this machine reaches others, without what is in this machine's own files."""
    kept = {
        name: " ".join(word for word in settings[name].split() if not word.startswith("file:"))
        for name in PIP_SETTINGS
        if name in settings
    }
    lines = [f"{name} = {value}" for name, value in kept.items() if value]
    return "\n".join(["[global]", f"cert = /{AUTHORITIES}", *lines, ""])
