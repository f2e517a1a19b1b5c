"""What supervisor makes of its configuration: it expands %(...)s, in one place twice."""

from __future__ import annotations

import pytest
from supervisor.options import ServerOptions

from ops.stack.processes import servers
from ops.stack.supervisor import Supervisor
from webapp.settings import Settings


@pytest.mark.parametrize("name", ["plain", "50%", "%s", "%(x)s", "a b%%c"])
def test_any_folder_is_taken_as_it_is(tmp_path, name, monkeypatch):
    for given in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(given, raising=False)
    data = tmp_path / name
    data.mkdir()
    written = data / "supervisord.conf"
    (data / "logs").mkdir()
    (data / "run").mkdir()
    written.write_text(Supervisor(data)._configuration(servers(Settings(), data), tmp_path))
    read = ServerOptions()
    read.realize(["-c", str(written)])
    programs = [program for group in read.process_group_configs for program in group.process_configs]
    assert [program.name for program in programs] == ["postgres", "redis"]
    assert all(program.stdout_logfile == f"{data}/logs/{program.name}.log" for program in programs)
    assert all(str(data / program.name) in program.command for program in programs)
    assert read.logfile == f"{data}/logs/supervisord.log"
