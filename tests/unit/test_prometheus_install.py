"""Where Prometheus comes from, and what is said where it cannot come from anywhere."""

from __future__ import annotations

import pytest

from ops.stack import prometheus


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with an empty PATH, and an empty `.venv`."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(prometheus, "VENV", tmp_path)
    monkeypatch.setattr(prometheus, "FOLDER", tmp_path / "prometheus")
    return tmp_path


def program(folder, name, text="#!/bin/sh\nexit 0\n"):
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / name
    made.write_text(text)
    made.chmod(0o755)
    return made


def test_what_is_on_the_path_is_used(bare):
    assert prometheus.find() is None
    made = program(bare / "bin", "prometheus")
    program(bare / "bin", "promtool")
    assert prometheus.find() == made
    prometheus.install()


def test_ours_comes_before_the_machines(bare):
    program(bare / "bin", "promtool")
    ours = program(bare / "prometheus" / "usr" / "bin", "promtool")
    assert prometheus.find("promtool") == ours


def test_elsewhere_than_on_debian_it_says_what_is_missing(bare):
    with pytest.raises(prometheus.PrometheusError, match="put `prometheus` and `promtool` on the PATH"):
        prometheus.install()


def test_without_debians_packages_it_says_what_to_do(bare):
    program(bare / "bin", "dpkg-deb")
    program(bare / "bin", "apt-get", "#!/bin/sh\necho E: no such network >&2\nexit 100\n")
    with pytest.raises(
        prometheus.PrometheusError,
        match=r"\(E: no such network\): as root, `apt-get update && apt-get install",
    ):
        prometheus.install()
    assert not (bare / "prometheus").exists()
