"""What `ops up` says before anything is installed: about settings, ports, servers and handlers, in one sentence."""

from __future__ import annotations

import socket
from typing import Literal, get_origin

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ops.stack import bounds, early, ports
from webapp.settings import Settings, SettingsError

KNOWN = bounds.known()


@pytest.fixture
def free(tmp_path):
    """An environment with which nothing is wrong."""
    return {name: str(ports.free()) for name in early.PORTS} | {
        "DJPS_ENV_FILE": "",
        "PYTHONPATH": str(tmp_path),
    }


def test_nothing_is_said_where_nothing_is_wrong(free):
    assert early.refusal(free) is None


def test_every_setting_whose_field_says_what_it_may_be_is_known():
    said = {
        field.alias or name.upper()
        for name, field in Settings.model_fields.items()
        if field.annotation in (int, float)
        or get_origin(field.annotation) is Literal
        or any(getattr(one, "pattern", None) for one in field.metadata)
    }
    assert set(KNOWN) == said
    assert len(KNOWN) > 25


@settings(max_examples=300)
@given(
    name=st.sampled_from(sorted(KNOWN)),
    text=st.one_of(
        st.sampled_from(["INFO", "info", "always_on", "loud"]),
        st.integers().map(str),
        st.floats().map(str),
        st.text("0123456789.eE+-_ xn", max_size=8),
    ),
)
@example(name="BACKOFF_BASE", text="")
@example(name="BACKOFF_BASE", text="1_.")
@example(name="API_PORT", text=" 5 ")
@example(name="API_PORT", text="1.0")
def test_what_is_refused_early_is_refused_by_the_settings(name, text):
    if not KNOWN[name].admits(text):
        with pytest.raises(ValidationError):
            Settings.model_validate({name: text, name.lower(): text})


@pytest.mark.parametrize("name", [name for name, rule in KNOWN.items() if isinstance(rule, bounds.Bounds)])
def test_what_is_out_of_bounds_is_refused_early(name):
    for limit, number in KNOWN[name].limits.items():
        beyond = number - 1 if limit in {"ge", "gt"} else number + 1
        assert early.refusal({name: f"{beyond:.12g}", "DJPS_ENV_FILE": ""}).startswith(f"{name}: must be a")


def wrong_for(rule):
    """A value that a rule refuses."""
    if isinstance(rule, bounds.Bounds):
        return "many"
    return "~"


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_wrong_setting_is_said_alike_before_and_after_installation(name, monkeypatch):
    monkeypatch.setenv("DJPS_ENV_FILE", "")
    values = [wrong_for(KNOWN[name])]
    if isinstance(KNOWN[name], bounds.Bounds) and (limits := KNOWN[name].limits):
        values.append(f"{min(limits.values()) - 1:.12g}")
    for value in values:
        monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError) as refused:
            Settings.load()
        assert bounds.breach({name: value}) in str(refused.value).split("; ")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"API_PORT": "many"}, "API_PORT: must be a whole number from 1 to 65535 (given: 'many')"),
        ({"API_PORT": "80.5"}, "API_PORT: must be a whole number from 1 to 65535 (given: '80.5')"),
        ({"BACKOFF_BASE": "-1"}, "BACKOFF_BASE: must be a number "),
        (
            {"LOG_LEVEL": "loud"},
            "LOG_LEVEL: must match ^(DEBUG|INFO|WARNING|ERROR|CRITICAL)$ (given: 'loud')",
        ),
        ({"OTEL_TRACES_SAMPLER": "some"}, "OTEL_TRACES_SAMPLER: must be one of always_on, always_off, "),
        (
            {"DATABASE_URL": "mysql://u:sesame@127.0.0.1:1/d"},
            "DATABASE_URL: must begin with postgresql:// (given: ",
        ),
        ({"REDIS_URL": "127.0.0.1"}, "REDIS_URL: must begin with redis:// (given: "),
        ({"HANDLERS": "nowhere_handlers"}, "HANDLERS: there is no module 'nowhere_handlers' in "),
        ({"HANDLERS": "broken_handlers"}, "broken_handlers.py is no Python: invalid syntax"),
        (
            {"REDIS_URL": "redis://127.0.0.1:{closed}/0"},
            "nothing answers at 127.0.0.1:{closed}; check REDIS_URL (",
        ),
        (
            {"DATABASE_URL": "postgresql+psycopg2://u:sesame@127.0.0.1:{closed}/d"},
            "nothing answers at 127.0.0.1:{closed}; check DATABASE_URL (",
        ),
        ({"FLOWER_PORT": "{taken}"}, "port {taken} is in use"),
    ],
)
def test_what_cannot_work_is_one_sentence(free, tmp_path, monkeypatch, settings, sentence):
    monkeypatch.setattr(early, "VENV", tmp_path / "no environment")
    (tmp_path / "broken_handlers.py").write_text("def x(:\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        places = {"closed": ports.free(), "taken": taken.getsockname()[1]}
        said = early.refusal(free | {name: value.format(**places) for name, value in settings.items()})
    assert sentence.format(**places) in said
    assert "sesame" not in said
    assert len(said.splitlines()) == 1


def test_an_env_file_is_read_and_the_environment_comes_first(free, tmp_path):
    file = tmp_path / "mine.env"
    file.write_text("# a comment\nexport NUM_WORKERS='none'\nnonsense\n")
    wrong = free | {"DJPS_ENV_FILE": str(file)}
    assert early.refusal(wrong).startswith("NUM_WORKERS: ")
    assert early.refusal(wrong | {"NUM_WORKERS": "2"}) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"HANDLERS": "there, pack.inner"},
        {"HANDLERS": "pack.made_when_it_is_imported"},
        {"DATABASE_URL": "postgresql://a:1,b:2/d"},
        {"REDIS_URL": "redis://[::1/0"},
        {"REDIS_URL": "unix:///tmp/no.sock"},
        {"RATE_LIMIT": "many"},
    ],
)
def test_what_cannot_be_judged_early_is_left_to_the_settings(free, tmp_path, monkeypatch, settings):
    monkeypatch.setattr(early, "VENV", tmp_path / "no environment")
    (tmp_path / "there.py").write_text("import what_is_not_installed_yet\n")
    (tmp_path / "pack" / "inner").mkdir(parents=True)
    (tmp_path / "pack" / "inner" / "__init__.py").write_text("")
    assert early.refusal(free | settings) is None


def test_a_server_that_answers_is_no_fault(free):
    with socket.create_server(("127.0.0.1", 0)) as there:
        where = f"redis://127.0.0.1:{there.getsockname()[1]}/0"
        assert early.refusal(free | {"REDIS_URL": where}) is None
