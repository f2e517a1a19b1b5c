"""Calls to the outside: where `http` jobs may go, and what signs calls and callbacks."""

from __future__ import annotations

import binascii
from base64 import b64decode

from pydantic import Field, SecretStr, field_validator, model_validator

from webapp.settings.group import KIBIBYTE, Group, items_of
from webapp.settings.targets import read_ports, read_targets

#: Sizes of a webhook secret that the Standard Webhooks specification allows, bytes.
SECRET_BYTES = range(24, 65)


class OutboundSettings(Group):
    """Calls to the outside."""

    http_allowed_targets: str = Field(
        "",
        description="Internal targets `http` jobs may call: host, host:port, network, network:port; comma-separated.",
    )
    http_allowed_ports: str = Field("80,443", description="Ports `http` jobs may call, comma-separated.")
    http_max_bytes: int = Field(
        64 * KIBIBYTE,
        ge=0,
        le=16_777_216,
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
        for number, secret in enumerate(items_of(value.get_secret_value()), 1):
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
    def _callbacks_have_their_own(self) -> OutboundSettings:
        if set(self.webhook_keys) & set(self.callback_keys):
            raise ValueError(
                "CALLBACK_SECRETS and WEBHOOK_SECRETS must have no secret in common:"
                " with it an `http` job could forge a callback"
            )
        return self

    @property
    def callback_keys(self) -> tuple[str, ...]:
        """The secrets in CALLBACK_SECRETS, the newest first."""
        return items_of(self.callback_secrets.get_secret_value())

    @property
    def webhook_keys(self) -> tuple[str, ...]:
        """The secrets in WEBHOOK_SECRETS, the newest first."""
        return items_of(self.webhook_secrets.get_secret_value())
