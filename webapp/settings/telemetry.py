"""What operators see: logs, traces, workers' counters, Flower."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from webapp.settings.group import LOOPBACK, Group


class TelemetrySettings(Group):
    """What operators see."""

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
    worker_metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port where a worker's parent serves its host's counters; 0: none."
    )
    worker_metrics_host: str = Field(
        "127.0.0.1", description="Address on which a worker serves its host's counters."
    )
    flower_host: str = Field(
        "127.0.0.1", description="Address Flower listens on; another than loopback needs FLOWER_BASIC_AUTH."
    )
    flower_port: int = Field(5555, ge=1, le=65_535, description="Port of Flower.")
    flower_basic_auth: SecretStr = Field(
        SecretStr(""), description="Who may use Flower, as user:password; comma-separated; empty: everybody."
    )

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
    def _flower_is_guarded(self) -> TelemetrySettings:
        if self.flower_host not in LOOPBACK and not self.flower_basic_auth.get_secret_value():
            raise ValueError(
                f"FLOWER_HOST {self.flower_host!r} is not loopback, so FLOWER_BASIC_AUTH must name who may enter"
            )
        return self

    @property
    def traces_url(self) -> str:
        """Where traces are sent; empty when they are off."""
        base = self.otel_exporter_otlp_endpoint.rstrip("/")
        return self.otel_exporter_otlp_traces_endpoint or (f"{base}/v1/traces" if base else "")
