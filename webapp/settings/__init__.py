"""Every setting of DJPS: its name, unit, default and bounds.

Values come from the environment, then from the file that `DJPS_ENV_FILE` names (`.env` by default),
then from the defaults here. They are checked once, at start; a wrong value stops the process with one
sentence that names the variable, the rule and what was given.
"""

from __future__ import annotations

import binascii
import os
import re
from base64 import b64decode
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from webapp.settings import keyprefix
from webapp.settings.local import read_note
from webapp.settings.server_urls import check_redis_url, read_database_url
from webapp.settings.targets import read_ports, read_targets

KIBIBYTE = 1024
#: Sizes of a webhook secret that the Standard Webhooks specification allows, bytes.
SECRET_BYTES = range(24, 65)
_HOST_NAME = re.compile(r"\.?[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?")
#: Addresses that only this host reaches.
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class SettingsError(ValueError):
    """A setting is missing or out of bounds."""


class Settings(BaseSettings):
    """The settings of every DJPS process, validated.

    Example:
        >>> Settings(max_job_retries=5).max_job_retries
        5
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=False)

    database_url: str = Field(
        "postgresql+psycopg2://djps:djps@localhost:5432/djps",
        description="PostgreSQL, the record of every job.",
    )
    database_listen_url: str = Field(
        "",
        description="The same database without a pooler between, for requests that wait; empty: DATABASE_URL.",
    )
    redis_url: str = Field(
        "redis://localhost:6379/0", description="Redis or Valkey: broker, limiter, heartbeats."
    )

    redis_prefix: str = Field(
        "", description="Begins every key in Redis, such as `shop:`; two installations can share it."
    )

    simulated_job_url: str = Field(
        "https://httpbin.org/delay/1", description="URL the `simulated` handler calls."
    )
    simulated_failure_rate: float = Field(
        0.2, ge=0, le=1, description="Share of `simulated` jobs that fail, 0 to 1."
    )
    simulated_timeout: float = Field(
        5.0, gt=0, le=300, description="Seconds before `simulated` gives up its call."
    )

    handlers: str = Field("", description="Modules with handlers of your own, comma-separated dotted names.")
    default_handler: str = Field(
        "simulated",
        description="Handler of a job whose payload names none, and of an unknown task while HANDLERS is empty; empty: refuse such jobs.",
    )
    queues: str = Field(
        "", description="Queues jobs may ask for beside those that handlers name, comma-separated."
    )

    max_job_retries: int = Field(3, ge=0, le=100, description="Retries after the first attempt, by default.")
    backoff_base: float = Field(2.0, ge=1, le=100, description="Retry n waits BACKOFF_BASE ** n seconds.")
    max_backoff: float = Field(60.0, ge=0, le=86_400, description="Longest wait before a retry, seconds.")
    backoff_jitter: float = Field(
        0.0, ge=0, le=1, description="Share of a wait that is random, 0 (none) to 1."
    )
    job_timeout: float = Field(300.0, gt=0, le=86_400, description="Seconds an attempt may take, by default.")

    worker_heartbeat_ttl: int = Field(
        30, ge=3, le=3_600, description="Seconds a worker's heartbeat key lives."
    )
    stuck_job_threshold: int = Field(60, ge=3, le=3_600, description="Lease of a running job, seconds.")
    stuck_check_interval: float = Field(
        10, ge=0.5, le=3_600, description="Seconds between looks for stuck jobs."
    )
    num_workers: int = Field(2, ge=1, le=256, description="Prefork children of a worker.")
    max_tasks_per_child: int = Field(250_000, ge=1, description="Jobs a child runs before it is replaced.")
    shutdown_grace: float = Field(20.0, ge=0, le=3_600, description="Seconds running jobs get after SIGTERM.")

    cancel_grace: float = Field(
        10.0,
        ge=2,
        le=3_600,
        description="Seconds a running job gets to stop once its cancellation was asked.",
    )

    broker_buffer: int = Field(
        1_000, ge=1, le=100_000, description="Most messages of one queue kept in Redis."
    )
    redispatch_after: float = Field(
        60.0, ge=5, le=86_400, description="Seconds before an unclaimed job is sent again."
    )
    idempotency_ttl: float = Field(
        86_400.0, ge=1, le=2_592_000, description="Seconds an idempotency key lives."
    )
    retention_days: int = Field(30, ge=0, le=36_500, description="Days a final job is kept; 0: for ever.")

    rate_limit: str = Field(
        "10 per minute", description="Submissions per client address; off (or empty): no limit."
    )
    trusted_proxies: int = Field(0, ge=0, le=10, description="Proxies whose X-Forwarded-For is believed.")
    trusted_hosts: str = Field(
        "",
        description="Host names requests may be for (.example.com: all below it; *: any), comma-separated; empty: loopback's"
        " where API_HOST is loopback and no proxy is trusted, else any.",
    )
    max_payload_bytes: int = Field(
        256 * KIBIBYTE, ge=KIBIBYTE, le=16 * KIBIBYTE**2, description="Largest body, bytes."
    )
    max_result_bytes: int = Field(
        64 * KIBIBYTE, ge=0, le=16 * KIBIBYTE**2, description="Largest kept result, bytes."
    )

    http_allowed_targets: str = Field(
        "",
        description="Internal targets `http` jobs may call: host, host:port, network, network:port; comma-separated.",
    )
    http_allowed_ports: str = Field("80,443", description="Ports `http` jobs may call, comma-separated.")
    http_max_bytes: int = Field(
        64 * KIBIBYTE,
        ge=0,
        le=16 * KIBIBYTE**2,
        description="Most that an `http` job reads of an answer, bytes.",
    )
    http_timeout: float = Field(
        30.0, gt=0, le=3_600, description="Seconds before an `http` job gives up its call, by default."
    )
    webhook_secrets: SecretStr = Field(
        SecretStr(""),
        description="Secrets that sign the calls of `http` jobs (whsec_...), the newest first, comma-separated.",
    )
    callback_secrets: SecretStr = Field(
        SecretStr(""),
        description="Secrets that sign callbacks, and nothing else (whsec_...), the newest first, comma-separated.",
    )

    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR|CRITICAL)$", description="Least severe line."
    )
    otel_exporter_otlp_endpoint: str = Field(
        "", description="Collector that takes traces as OTLP over HTTP (http://host:4318); empty: no traces."
    )
    otel_exporter_otlp_traces_endpoint: str = Field(
        "", description="Whole URL for traces, where it is not /v1/traces at that collector."
    )
    otel_service_name: str = Field(
        "", description="This service's name in traces; empty: djps-api and djps-worker."
    )
    otel_traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = Field("parentbased_always_on", description="Which traces are kept, by OpenTelemetry's name for it.")
    otel_traces_sampler_arg: float = Field(
        1.0, ge=0, le=1, description="Share of traces that a `traceidratio` sampler keeps, 0 to 1."
    )
    data_dir: Path = Field(Path(".djps"), alias="DJPS_DATA_DIR", description="Where `ops up` keeps its data.")
    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(8000, ge=1, le=65_535, description="Port of the API.")
    api_workers: int = Field(2, ge=1, le=64, description="gunicorn worker processes.")
    api_threads: int = Field(4, ge=1, le=64, description="Threads of each gunicorn worker.")
    worker_metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port where a worker's parent serves its host's counters; 0: none."
    )
    worker_metrics_host: str = Field(
        "127.0.0.1", description="Address on which a worker serves its host's counters."
    )
    max_waiters: int = Field(
        128, ge=1, le=1_000, description="Requests of each gunicorn worker that may wait for a job at once."
    )
    flower_host: str = Field(
        "127.0.0.1", description="Address Flower listens on; another than loopback needs FLOWER_BASIC_AUTH."
    )
    flower_port: int = Field(5555, ge=1, le=65_535, description="Port of Flower.")
    flower_basic_auth: SecretStr = Field(
        SecretStr(""), description="Who may use Flower, as user:password; comma-separated; empty: everybody."
    )
    prometheus_port: int = Field(
        9090,
        ge=1,
        le=65_535,
        description="Port of the Prometheus that `ops up` starts where one is installed.",
    )
    postgres_port: int = Field(
        5432, ge=1, le=65_535, description="Port of the PostgreSQL that `ops up` starts."
    )
    redis_port: int = Field(6379, ge=1, le=65_535, description="Port of the Valkey that `ops up` starts.")
    httpbin_port: int = Field(8099, ge=1, le=65_535, description="Port of the httpbin that `ops up` starts.")

    @field_validator("database_url", "database_listen_url")
    @classmethod
    def _postgresql_only(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "database_listen_url":
            return value
        return read_database_url(value)

    @field_validator("redis_url")
    @classmethod
    def _redis_only(cls, value: str) -> str:
        check_redis_url(value)
        return value

    @field_validator("redis_prefix")
    @classmethod
    def _prefix_of_no_other_key(cls, value: str) -> str:
        return keyprefix.checked(value)

    @field_validator("otel_exporter_otlp_endpoint", "otel_exporter_otlp_traces_endpoint")
    @classmethod
    def _collector_over_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and not (parts.scheme in {"http", "https"} and parts.hostname):
            raise ValueError("must be an http:// or https:// URL such as http://collector:4318")
        return value

    @field_validator("flower_basic_auth")
    @classmethod
    def _users_and_passwords(cls, value: SecretStr) -> SecretStr:
        for pair in filter(None, value.get_secret_value().split(",")):
            user, colon, password = pair.partition(":")
            if not (user and colon and password):
                raise ValueError("must be user:password, or several of them with commas between")
        return value

    @model_validator(mode="after")
    def _flower_is_guarded(self) -> Settings:
        if self.flower_host not in LOOPBACK and not self.flower_basic_auth.get_secret_value():
            raise ValueError(
                f"FLOWER_HOST {self.flower_host!r} is not loopback, so FLOWER_BASIC_AUTH must name who may enter"
            )
        return self

    @field_validator("rate_limit")
    @classmethod
    def _limits_notation(cls, value: str) -> str:
        if value.strip().lower() in {"", "off", "none"}:
            return ""
        parse_many(value)
        return value

    @field_validator("trusted_hosts")
    @classmethod
    def _host_names(cls, value: str) -> str:
        for name in _items(value):
            if name != "*" and not _HOST_NAME.fullmatch(name):
                raise ValueError(
                    f"must be host names or addresses without a port, or *; {name[:80]!r} is neither"
                )
        return value

    @field_validator("http_allowed_targets")
    @classmethod
    def _targets_readable(cls, value: str) -> str:
        read_targets(value)
        return value

    @field_validator("http_allowed_ports")
    @classmethod
    def _ports_readable(cls, value: str) -> str:
        read_ports(value)
        return value

    @field_validator("webhook_secrets", "callback_secrets")
    @classmethod
    def _secrets_readable(cls, value: SecretStr) -> SecretStr:
        for number, secret in enumerate(_items(value.get_secret_value()), 1):
            try:
                size = len(b64decode(secret.removeprefix("whsec_"), validate=True))
            except binascii.Error:
                size = 0
            if not secret.startswith("whsec_") or size not in SECRET_BYTES:
                raise ValueError(
                    f"secret {number} must be whsec_ and base64 of {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} bytes"
                )
        return value

    @model_validator(mode="after")
    def _callbacks_have_their_own(self) -> Settings:
        if set(self.webhook_keys) & set(self.callback_keys):
            raise ValueError(
                "CALLBACK_SECRETS and WEBHOOK_SECRETS must have no secret in common:"
                " with it an `http` job could forge a callback"
            )
        return self

    @property
    def callback_keys(self) -> tuple[str, ...]:
        """The secrets in CALLBACK_SECRETS, the newest first."""
        return _items(self.callback_secrets.get_secret_value())

    @property
    def hosts_served(self) -> tuple[str, ...]:
        """The names that requests may be for, in lower case; none when any will do."""
        names = tuple(name.strip("[]").lower() for name in _items(self.trusted_hosts))
        if not names and self.api_host in LOOPBACK and not self.trusted_proxies:
            return LOOPBACK
        return () if "*" in names else names

    @property
    def webhook_keys(self) -> tuple[str, ...]:
        """The secrets in WEBHOOK_SECRETS, the newest first."""
        return _items(self.webhook_secrets.get_secret_value())

    @property
    def traces_url(self) -> str:
        """Where traces are sent; empty when they are off."""
        base = self.otel_exporter_otlp_endpoint.rstrip("/")
        return self.otel_exporter_otlp_traces_endpoint or (f"{base}/v1/traces" if base else "")

    @property
    def handler_modules(self) -> tuple[str, ...]:
        """The dotted names in HANDLERS, in order."""
        return _items(self.handlers)

    @property
    def queue_names(self) -> tuple[str, ...]:
        """The names in QUEUES, in order."""
        return _items(self.queues)

    @classmethod
    def load(cls) -> Settings:
        """Reads and checks the settings of this process.

        Raises:
            SettingsError: a variable breaks its rule; the message names variable, rule and value.
        """
        try:
            return cls(_env_file=env_file())
        except ValidationError as error:
            raise SettingsError(
                "; ".join(_sentence(item) for item in error.errors(include_url=False))
            ) from None


def env_file() -> str | None:
    """The file that settings are read from beside the environment; None when there is to be none."""
    return os.environ.get("DJPS_ENV_FILE", ".env") or None


def _items(value: str) -> tuple[str, ...]:
    """The items of a comma-separated list."""
    return tuple(item.strip() for item in value.split(",") if item.strip())


def _sentence(item: ErrorDetails) -> str:
    """Says which variable broke which rule, and hides secrets and a URL's password."""
    name = "_".join(str(part) for part in item["loc"]).upper()
    if not name:
        # A rule about several settings names them itself.
        return item["msg"].removeprefix("Value error, ")
    given = repr(item["input"])[:80]
    if name.endswith(("_URL", "_ENDPOINT")):
        given = "a URL that is not shown"
    elif name.endswith("_SECRETS"):
        given = "secrets that are not shown"
    elif name.endswith("_AUTH"):
        given = "a password that is not shown"
    return f"{name}: {item['msg'].removeprefix('Value error, ')} (given: {given})"


@lru_cache(maxsize=1)
def current() -> Settings:
    """The settings this process started with; what they name no server for is the running stack's."""
    return reaching_stack(Settings.load())


def reaching_stack(settings: Settings) -> Settings:
    """Settings that reach the servers of `ops up`, where they name none themselves.

    DATABASE_URL and REDIS_URL come first, then POSTGRES_PORT and REDIS_PORT, then what the running stack says of itself in
    its data folder, then the defaults. So `flask --app wsgi` in any shell looks at the stack of this clone.
    """
    note = read_note(settings.data_dir)
    found = {}
    for name, port, by_default in (
        ("database_url", "postgres_port", 5432),
        ("redis_url", "redis_port", 6379),
    ):
        if name in settings.model_fields_set:
            continue
        if port in settings.model_fields_set:
            found[name] = getattr(settings, name).replace(f":{by_default}/", f":{getattr(settings, port)}/")
        elif isinstance(note.get(name), str):
            found[name] = note[name]
            if name == "redis_url" and "redis_prefix" not in settings.model_fields_set:
                found["redis_prefix"] = str(note.get("redis_prefix", ""))
    return settings.model_copy(update=found)
