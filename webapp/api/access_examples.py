"""Examples of requests and answers about callers and keys, for the description of the API."""

from __future__ import annotations

from typing import Any

from webapp.access.errors import OnCommandLine, TooManyKeys, UnknownKey
from webapp.access.model import Scope
from webapp.access.store import MOST_KEYS
from webapp.api.examples import Examples, invalid, problem

_KEY: dict[str, Any] = {
    "id": 7,
    "tenant": "default",
    "name": "dashboard",
    "state": "live",
    "role": "viewer",
    "scopes": [],
    "networks": ["10.0.0.0/8"],
    "queues": [],
    "quotas": None,
    "created_by": "key 1 (admin)",
    "created_at": "2026-11-24T05:02:36.120331Z",
    "expires_at": "2027-11-24T05:02:36.120331Z",
    "revoked_at": None,
    "last_used_at": "2026-11-24T06:00:01.5Z",
    "last_used_from": "10.0.0.7",
    "secrets": ["3i2R"],
}
_NEW = _KEY | {"last_used_at": None, "last_used_from": None}
#: No key of anyone: its checksum is wrong.
_SECRET = "djps_k_" + "0" * 40 + "3i2R00"
_UNKNOWN = {404: problem(404, str(UnknownKey(7)))}
_NOT_HERE = {
    403: problem(
        403,
        str(
            OnCommandLine(
                f"keys with the scope {Scope.ACCESS_MANAGE} are made and rotated on the command line alone"
            )
        ),
    )
}

ME = Examples(
    answers={
        200: {
            "mode": "keys",
            "tenant": "default",
            "key": 7,
            "name": "dashboard",
            "scopes": ["dlq:read", "jobs:read", "queues:read"],
            "queues": None,
            "quotas": None,
            "expires_at": "2027-11-24T05:02:36Z",
        }
    }
)
PAGE = Examples(
    query={"ended": False, "limit": 100},
    answers={
        200: {"items": [_KEY], "next_cursor": None},
        422: invalid("limit", "must be at most 1000", "'5000'"),
    },
)
CREATE = Examples(
    bodies={
        "looks at everything": {"name": "dashboard", "role": "viewer", "networks": ["10.0.0.0/8"]},
        "submits, for ninety days": {"name": "shop", "scopes": ["jobs:submit"], "lifetime": 7_776_000},
        "no more than a thousand jobs a minute": {
            "name": "importer",
            "scopes": ["jobs:submit"],
            "quotas": {"submit_per_minute": 1_000},
        },
        "of one queue": {"name": "video", "scopes": ["jobs:submit", "jobs:read"], "queues": ["video"]},
    },
    answers={
        201: _NEW | {"secret": _SECRET},
        409: problem(409, str(TooManyKeys(MOST_KEYS))),
        422: invalid("body", "must have a role, or scopes, or both", "dict"),
        **_NOT_HERE,
    },
)
ONE = Examples(answers={200: _KEY, **_UNKNOWN})
ROTATE = Examples(
    bodies={"an hour for clients to change": {"overlap": 3_600}},
    answers={
        200: _KEY | {"secrets": ["3i2R", "x7Qa"], "secret": _SECRET},
        409: problem(409, "key 7 ('dashboard') is revoked; make a new one with `access key create`"),
        422: invalid("overlap", "must be at least 0", "-1"),
        **_UNKNOWN,
        **_NOT_HERE,
    },
)
QUOTAS = Examples(
    bodies={
        "jobs and requests a minute": {"submit_per_minute": 1_000, "read_per_minute": 600},
        "none": {},
    },
    answers={
        200: _KEY
        | {
            "quotas": {
                "submit_per_minute": 1_000,
                "read_per_minute": 600,
                "max_waiters": None,
                "max_payload_bytes": None,
            }
        },
        409: problem(409, "key 7 ('dashboard') is revoked; make a new one with `access key create`"),
        422: invalid("submit_per_minute", "must be at least 1", "0"),
        **_UNKNOWN,
        **_NOT_HERE,
    },
)
REVOKE = Examples(
    answers={
        200: _KEY | {"state": "revoked", "revoked_at": "2026-11-24T07:00:00.120331Z", "secrets": []},
        **_UNKNOWN,
    }
)
