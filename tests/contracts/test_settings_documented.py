from __future__ import annotations

import re
from pathlib import Path

import pytest
from dotenv import dotenv_values

from webapp.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / ".env.example"
_DOCUMENTED = re.compile(r"^# (?P<words>.+)\n#(?P<name>[A-Z0-9_]+)=(?P<value>.*)$", re.MULTILINE)
FIELDS = {(info.alias or field).upper(): info for field, info in Settings.model_fields.items()}


@pytest.fixture(scope="module")
def documented():
    return {found["name"]: found for found in _DOCUMENTED.finditer(EXAMPLE.read_text())}


def test_every_setting_is_in_the_example_and_nothing_else_is(documented):
    assert set(documented) == set(FIELDS)
    assert len(re.findall(r"^#?[A-Z0-9_]+=", EXAMPLE.read_text(), re.MULTILINE)) == len(FIELDS)


@pytest.mark.parametrize("name", list(FIELDS))
def test_a_setting_is_shown_with_its_default_and_described_in_its_own_words(documented, name):
    assert documented[name]["value"] == str(FIELDS[name].default)
    assert documented[name]["words"] == FIELDS[name].description


def test_the_example_with_every_line_in_force_is_what_holds_without_it(tmp_path, monkeypatch):
    for name in FIELDS:
        monkeypatch.delenv(name, raising=False)
    in_force = tmp_path / "env"
    in_force.write_text(re.sub(r"^#(?=[A-Z0-9_]+=)", "", EXAMPLE.read_text(), flags=re.MULTILINE))
    assert set(dotenv_values(in_force)) == set(FIELDS)
    monkeypatch.setenv("DJPS_ENV_FILE", str(in_force))
    from_example = Settings.load()
    monkeypatch.setenv("DJPS_ENV_FILE", "")
    assert from_example == Settings.load()


def test_a_copied_example_sets_nothing():
    # `ops up` starts its own servers unless their addresses are set.
    assert dotenv_values(EXAMPLE) == {}


@pytest.mark.parametrize("name", list(FIELDS))
def test_the_page_of_settings_names_one_with_its_default(name):
    default = str(FIELDS[name].default)
    row = f"| `{name}` | {f'`{default}`' if default else 'empty'} | {FIELDS[name].description}"
    assert row in (ROOT / "ops" / "docs" / "settings.md").read_text()
