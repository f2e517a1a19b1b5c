from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import annotated_types
import pytest

from webapp import startup
from webapp.settings import Settings, SettingsError

ROOT = Path(__file__).resolve().parents[2]

FIELDS = Settings.model_fields


def variable(field):
    return (FIELDS[field].alias or field).upper()


def bounds():
    for field, info in FIELDS.items():
        step = 1 if info.annotation is int else 0.001
        for rule in info.metadata:
            match rule:
                case annotated_types.Ge(ge=edge):
                    yield pytest.param(field, edge, edge - step, id=f"{field} from {edge}")
                case annotated_types.Gt(gt=edge):
                    yield pytest.param(field, edge + step, edge, id=f"{field} above {edge}")
                case annotated_types.Le(le=edge):
                    yield pytest.param(field, edge, edge + step, id=f"{field} to {edge}")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """Only what a test sets is there to read."""
    for field in FIELDS:
        monkeypatch.delenv(variable(field), raising=False)
    monkeypatch.setenv("DJPS_ENV_FILE", str(tmp_path / "env"))


@pytest.mark.parametrize(("field", "within", "beyond"), list(bounds()))
def test_a_number_is_taken_at_its_bound_and_refused_beyond_it(monkeypatch, field, within, beyond):
    monkeypatch.setenv(variable(field), str(within))
    assert getattr(Settings.load(), field) == pytest.approx(within)
    monkeypatch.setenv(variable(field), str(beyond))
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    message = str(caught.value)
    assert message.startswith(f"{variable(field)}: ")
    assert "must be a" in message
    assert repr(str(beyond)) in message


NUMBERS = [field for field, info in FIELDS.items() if info.annotation in {int, float}]


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", ["many", "", "nan", "1e999"])
def test_what_is_not_a_finite_number_is_refused(monkeypatch, field, value):
    monkeypatch.setenv(variable(field), value)
    with pytest.raises(SettingsError, match=rf"^{variable(field)}: "):
        Settings.load()


def test_every_number_has_a_lower_bound():
    def lower(info):
        return any(isinstance(rule, (annotated_types.Ge, annotated_types.Gt)) for rule in info.metadata)

    assert [field for field in NUMBERS if not lower(FIELDS[field])] == []


def test_the_contract_defaults_hold():
    found = Settings.load()
    assert found.database_url == "postgresql+psycopg2://djps:djps@localhost:5432/djps"
    assert found.redis_url == "redis://localhost:6379/0"
    assert found.simulated_job_url == "https://httpbin.org/delay/1"
    assert (found.simulated_failure_rate, found.simulated_timeout) == (0.2, 5.0)
    assert (found.max_job_retries, found.backoff_base, found.max_backoff) == (3, 2.0, 60.0)
    assert (found.worker_heartbeat_ttl, found.stuck_job_threshold) == (30, 60)
    assert (found.stuck_check_interval, found.num_workers) == (10, 2)
    assert found.rate_limit == "10 per minute"


@pytest.mark.parametrize("url", ["mysql://u:sesame@h/d", "nonsense sesame", "sqlite:///sesame", ""])
def test_only_postgresql_is_taken_and_no_password_is_shown(monkeypatch, url):
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(SettingsError, match=r"^DATABASE_URL: .*must be a .*URL") as caught:
        Settings.load()
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://u:sesame@h/d", "nonsense sesame", "postgresql://u:sesame@h:x/d"])
def test_a_replica_is_named_by_the_rules_of_the_primary_and_no_password_is_shown(monkeypatch, url):
    monkeypatch.setenv("DATABASE_READ_URL", url)
    with pytest.raises(SettingsError, match=r"^DATABASE_READ_URL: .*must be a .*URL") as caught:
        Settings.load()
    assert "sesame" not in str(caught.value)


def test_a_process_ends_with_a_sentence_where_the_replicas_url_is_wrong(monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_READ_URL", "mysql://u:sesame@h/d")
    with pytest.raises(SystemExit) as ended:
        startup.main()
    assert str(ended.value).startswith("djps: DATABASE_READ_URL: must be a PostgreSQL URL")
    assert "sesame" not in str(ended.value) + capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "0.05", "3601", "soon"])
def test_a_replica_may_be_behind_for_a_bounded_time(monkeypatch, given):
    monkeypatch.setenv("READ_STALENESS", given)
    with pytest.raises(SettingsError, match=r"^READ_STALENESS: "):
        Settings.load()


def test_there_is_no_replica_by_default(monkeypatch):
    assert Settings.load().database_read_url == ""
    monkeypatch.setenv("DATABASE_READ_URL", "postgres://u:p@h1,h2/d")
    assert Settings.load().database_read_url == "postgresql+psycopg2://u:p@/d?host=h1&host=h2"
    assert Settings.load().read_staleness == 5.0


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_every_way_to_say_postgresql_means_the_driver_we_ship(monkeypatch, scheme):
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://u:p%40ss@h:1/d")
    assert Settings.load().database_url == "postgresql+psycopg2://u:p%40ss@h:1/d"


@pytest.mark.parametrize("url", ["http://:sesame@h", "localhost:6379", "", "memory://"])
def test_only_redis_is_taken_and_no_password_is_shown(monkeypatch, url):
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"^REDIS_URL: .*must start with redis://") as caught:
        Settings.load()
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://h:1/2", "rediss://:pw@h", "unix:///run/redis.sock"])
def test_a_redis_url_is_kept_as_given(monkeypatch, url):
    monkeypatch.setenv("REDIS_URL", url)
    assert Settings.load().redis_url == url


@pytest.mark.parametrize("value", ["off", "", "none", " OFF "])
def test_the_limiter_can_be_turned_off(monkeypatch, value):
    monkeypatch.setenv("RATE_LIMIT", value)
    assert Settings.load().rate_limit == ""


@pytest.mark.parametrize("value", ["often", "10 per fortnight", "10"])
def test_a_limit_that_cannot_be_read_is_refused_by_name(monkeypatch, value):
    monkeypatch.setenv("RATE_LIMIT", value)
    with pytest.raises(SettingsError, match=rf"^RATE_LIMIT: .*{value}"):
        Settings.load()


def test_a_level_that_is_not_one_is_refused(monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    with pytest.raises(SettingsError, match=r"^LOG_LEVEL: .*'LOUD'"):
        Settings.load()


def test_all_broken_rules_are_named_at_once(monkeypatch):
    monkeypatch.setenv("NUM_WORKERS", "0")
    monkeypatch.setenv("API_PORT", "70000")
    with pytest.raises(SettingsError, match=r"NUM_WORKERS: .*; API_PORT: "):
        Settings.load()


def test_a_long_value_is_cut_in_the_message(monkeypatch):
    monkeypatch.setenv("NUM_WORKERS", "9" * 5_000)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert len(str(caught.value)) < 400


def test_the_environment_comes_before_the_file_and_the_file_before_the_default(monkeypatch, tmp_path):
    (tmp_path / "env").write_text("NUM_WORKERS=3\nAPI_PORT=9001\nSOMETHING_ELSE=x\n")
    monkeypatch.setenv("API_PORT", "9002")
    found = Settings.load()
    assert (found.num_workers, found.api_port, found.flower_port) == (3, 9002, 5555)


def test_an_empty_file_name_means_no_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("NUM_WORKERS=3\n")
    monkeypatch.setenv("DJPS_ENV_FILE", "")
    assert Settings.load().num_workers == 2
    monkeypatch.delenv("DJPS_ENV_FILE")
    assert Settings.load().num_workers == 3


def test_the_data_folder_is_named_with_the_projects_prefix(monkeypatch):
    monkeypatch.setenv("DJPS_DATA_DIR", "/srv/djps")
    assert str(Settings.load().data_dir) == "/srv/djps"


def test_handler_modules_are_split_and_trimmed():
    assert Settings(handlers=" a.b , c,,").handler_modules == ("a.b", "c")
    assert Settings(handlers="").handler_modules == ()


GOOD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_webhook_secrets_are_read_newest_first_and_never_shown():
    settings = Settings(webhook_secrets=f"{GOOD_SECRET}, {GOOD_SECRET[:-2]}SA,")
    assert settings.webhook_keys == (GOOD_SECRET, f"{GOOD_SECRET[:-2]}SA")
    assert "MfKQ" not in repr(settings)


def test_keys_of_seals_are_read_newest_first_and_never_shown():
    settings = Settings(audit_key=f"{'n' * 32}, {'o' * 32},")
    assert settings.audit_keys == ("n" * 32, "o" * 32)
    assert "n" * 32 not in repr(settings)


@pytest.mark.parametrize(("keys", "number"), [("short-one", 1), (f"{'n' * 32},short-one", 2)])
def test_a_key_of_seals_that_can_be_guessed_is_refused_and_not_shown(monkeypatch, keys, number):
    monkeypatch.setenv("AUDIT_KEY", keys)
    with pytest.raises(
        SettingsError, match=f"AUDIT_KEY: key {number} must have at least 32 characters"
    ) as refused:
        Settings.load()
    assert "short-one" not in str(refused.value)


def test_callbacks_and_http_jobs_share_no_secret(monkeypatch):
    monkeypatch.setenv("WEBHOOK_SECRETS", f"{GOOD_SECRET[:-2]}SA,{GOOD_SECRET}")
    monkeypatch.setenv("CALLBACK_SECRETS", GOOD_SECRET)
    with pytest.raises(SettingsError, match="CALLBACK_SECRETS and WEBHOOK_SECRETS must have") as refused:
        Settings.load()
    assert GOOD_SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "secret",
    ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_MfKQ", "whsec_*MfKQ", f"{GOOD_SECRET},whsec_MfKQ"],
)
def test_a_webhook_secret_that_is_none_is_refused_and_not_shown(monkeypatch, secret):
    monkeypatch.setenv("WEBHOOK_SECRETS", secret)
    with pytest.raises(SettingsError, match=r"WEBHOOK_SECRETS: secret \d must be whsec_") as refused:
        Settings.load()
    assert "MfKQ" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"), [("HTTP_ALLOWED_TARGETS", "http://a"), ("HTTP_ALLOWED_PORTS", "http")]
)
def test_targets_and_ports_are_read_at_start(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        Settings.load()


def test_flower_on_another_address_than_loopback_needs_a_password():
    assert Settings(flower_host="127.0.0.1").flower_host == "127.0.0.1"
    assert Settings(flower_host="0.0.0.0", flower_basic_auth="ada:sesame").flower_host == "0.0.0.0"  # noqa: S104
    with pytest.raises(ValueError, match="is not loopback, so FLOWER_BASIC_AUTH must name who may enter"):
        Settings(flower_host="0.0.0.0")  # noqa: S104 - that is what is refused


@pytest.mark.parametrize("given", ["sesame", ":sesame", "ada:", "ada:sesame,bob"])
def test_flowers_users_are_given_with_their_passwords_and_never_shown(monkeypatch, given):
    monkeypatch.setenv("FLOWER_BASIC_AUTH", given)
    with pytest.raises(SettingsError, match=r"FLOWER_BASIC_AUTH: must be user:password") as refused:
        Settings.load()
    assert "sesame" not in str(refused.value)


def test_a_rule_about_two_settings_names_them(monkeypatch):
    monkeypatch.setenv("FLOWER_HOST", "10.0.0.1")
    with pytest.raises(SettingsError, match=r"^FLOWER_HOST '10\.0\.0\.1' is not loopback"):
        Settings.load()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, ""),
        ({"otel_exporter_otlp_endpoint": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"otel_exporter_otlp_endpoint": "https://c/otlp/"}, "https://c/otlp/v1/traces"),
        ({"otel_exporter_otlp_traces_endpoint": "http://c/here"}, "http://c/here"),
        (
            {
                "otel_exporter_otlp_endpoint": "http://c:4318",
                "otel_exporter_otlp_traces_endpoint": "http://d/here",
            },
            "http://d/here",
        ),
    ],
)
def test_traces_go_where_the_standard_says(given, url):
    assert Settings(**given).traces_url == url


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
@pytest.mark.parametrize("given", ["c.example:4318", "grpc://user:sesame@c", "http:///here", "/v1/traces"])
def test_a_collector_that_is_no_http_address_is_refused_and_not_shown(monkeypatch, name, given):
    monkeypatch.setenv(name, given)
    with pytest.raises(SettingsError, match=f"{name}: must be an http:// or https:// URL") as refused:
        Settings.load()
    assert given not in str(refused.value)


@pytest.mark.parametrize("prefix", ["", "shop:", "shop:eu-1:", "a.b_c:", "x" * 50 + ":"])
def test_a_prefix_of_keys_ends_with_a_colon(monkeypatch, prefix):
    monkeypatch.setenv("REDIS_PREFIX", prefix)
    assert Settings.load().redis_prefix == prefix


@pytest.mark.parametrize(
    "prefix",
    [
        "shop",
        ":",
        "a b:",
        "a*:",
        "{a}:",
        "a::",
        "x" * 51 + ":",
        "a:\n",
        "djps:",
        "shop:djps:",
        "LIMITS:",
        "_kombu:",
    ],
)
def test_another_prefix_is_refused(monkeypatch, prefix):
    monkeypatch.setenv("REDIS_PREFIX", prefix)
    with pytest.raises(SettingsError, match=r"^REDIS_PREFIX: must (be empty|not have)"):
        Settings.load()


@pytest.mark.parametrize(
    ("text", "line"),
    [("garbage line\n", 1), ("A=1\n=3\n", 2), ('# mine\n\nJOB_TIMEOUT="5\nNUM_WORKERS=2\n', 3)],
)
def test_a_line_of_an_env_file_that_is_no_setting_is_named(tmp_path, monkeypatch, text, line):
    file = tmp_path / "mine.env"
    file.write_text(text)
    monkeypatch.setenv("DJPS_ENV_FILE", str(file))
    with pytest.raises(SettingsError, match=f"mine.env, line {line}: must be NAME=value"):
        Settings.load()


def test_an_env_file_may_have_comments_exports_and_quotes(tmp_path, monkeypatch):
    file = tmp_path / "mine.env"
    file.write_text("# mine\nexport NUM_WORKERS='3'\nJOB_TIMEOUT=\"7\" # seconds\n\nQUEUES=\n")
    monkeypatch.setenv("DJPS_ENV_FILE", str(file))
    found = Settings.load()
    assert (found.num_workers, found.job_timeout) == (3, 7.0)


def test_gunicorn_says_of_a_wrong_setting_one_sentence():
    environment = {"PATH": os.environ["PATH"], "DJPS_ENV_FILE": "", "API_THREADS": "x"}
    command = [sys.executable, "-c", "import ops.stack.gunicorn"]
    said = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert said.stderr == "djps: API_THREADS: must be a whole number from 1 to 64 (given: 'x')\n"
