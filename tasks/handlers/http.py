"""The `http` handler: calls a URL, so that a program in any language can be the worker."""

from __future__ import annotations

import base64
import json
import re
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from webapp.flow.tenant import DEFAULT_SLUG
from webapp.jobs import Discard, JobContext, Retry, handler
from webapp.outbound.call import Answer, Caller, Request
from webapp.outbound.guard import Guard
from webapp.outbound.signature import Purpose, Signer, secrets_of
from webapp.outbound.urls import Rules, TargetRefused, callable_url, read_url
from webapp.outbound.verdict import Again, Done, Never, Status, judge
from webapp.settings import Settings, current

#: Longest a call may take, whatever its payload says, seconds.
MAX_TIMEOUT = 3_600.0
#: Most headers a payload may set.
MAX_HEADERS = 50
#: Largest headers a payload may set, characters of names and values.
MAX_HEADER_CHARACTERS = 16_384
#: Time kept for writing the job's end before its own time limit, seconds.
MARGIN = 0.25

#: Headers of an answer that are kept in the job's result.
KEPT_HEADERS = ("content-type", "etag", "last-modified", "location", "retry-after", "x-request-id")
#: Headers that belong to the connection (RFC 9110, section 7.6.1) or are set by DJPS.
RESERVED_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: Families of headers that only DJPS sets.
RESERVED_PREFIXES = ("webhook-", "x-job-")

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
_STATUS_CLASS = re.compile(r"[1-5]xx")
_LAST_STATUS = 599


class UnwantedAnswer(Exception):
    """The answer asks for another try."""

    def __init__(self, origin: str, status: int) -> None:
        super().__init__(f"{origin} answered {status}")
        self.status = status


def _settable(headers: dict[str, str]) -> dict[str, str]:
    """Refuses headers that are not the payload's to set.

    Raises:
        ValueError: names the header and never its value, which may be a secret.
    """
    if len(headers) > MAX_HEADERS or sum(len(n) + len(v) for n, v in headers.items()) > MAX_HEADER_CHARACTERS:
        raise ValueError(
            f"must be at most {MAX_HEADERS} headers of {MAX_HEADER_CHARACTERS} characters in all"
        )
    seen: set[str] = set()
    for name, value in headers.items():
        small = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name[:50]!r} is no header name")
        if small in RESERVED_HEADERS or small.startswith(RESERVED_PREFIXES):
            raise ValueError(f"{small} is set by DJPS and not by a payload")
        if small in seen:
            raise ValueError(f"{small} is given twice")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of {small} must be printable ASCII without line breaks")
        seen.add(small)
    return headers


def _status(value: Status) -> Status:
    valid = (
        HTTPStatus.CONTINUE <= value <= _LAST_STATUS
        if isinstance(value, int)
        else _STATUS_CLASS.fullmatch(value) is not None
    )
    if not valid:
        raise ValueError("must be a status from 100 to 599, or a class such as 2xx")
    return value


#: Statuses and classes of them; one alone needs no list.
Statuses = Annotated[
    list[Annotated[Status, AfterValidator(_status)]],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    Field(max_length=50),
]


class HttpPayload(BaseModel):
    """The payload of an `http` job.

    Example:
        >>> HttpPayload.model_validate({"url": "https://example.org/run", "json": {"n": 1}}).method
        'POST'
    """

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    task: str = "http"
    url: Annotated[str, AfterValidator(callable_url)]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "POST"
    headers: Annotated[dict[str, str], AfterValidator(_settable)] = {}
    json_: Any = Field(None, alias="json")
    body: str | None = None
    timeout: float | None = Field(None, gt=0, le=MAX_TIMEOUT)
    expect: Statuses = ["2xx"]
    retry_on: Statuses = []

    @model_validator(mode="after")
    def _one_body_where_one_is_meant(self) -> Self:
        if self.has_json and self.body is not None:
            raise ValueError("json and body are two ways to give a body; give one of them")
        if self.method in {"GET", "HEAD"} and (self.has_json or self.body is not None):
            raise ValueError(f"a {self.method} has no body")
        return self

    @property
    def has_json(self) -> bool:
        """Tells `"json": null`, which is a body, from no `json` at all."""
        return "json_" in self.model_fields_set

    def content(self) -> bytes | None:
        """The body as it is sent."""
        if self.has_json:
            return json.dumps(self.json_, ensure_ascii=False, separators=(",", ":")).encode()
        return self.body.encode() if self.body is not None else None

    def all_headers(self) -> dict[str, str]:
        """The payload's headers, and what kind of body there is where they do not say."""
        if any(name.lower() == "content-type" for name in self.headers) or self.content() is None:
            return self.headers
        kind = "application/json" if self.has_json else "text/plain; charset=utf-8"
        return {"Content-Type": kind, **self.headers}


@handler("http", chunk=1, model=HttpPayload)
def http(payload: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Calls `payload["url"]`; the answer is the job's result.

    Returns:
        `status`, some `headers`, the `body` (`body_encoding` is `text` or `base64`), and whether it was `truncated`.

    Raises:
        Discard: the payload is wrong, its target is not allowed, or the answer says that another try is no use.
        Retry: the answer was 429 or 503 and said when to come back.
        UnwantedAnswer: the answer was 5xx, or one that `retry_on` names.
        webapp.outbound.call.CallFailed: no whole answer came in time.
    """
    wanted = read_payload(payload)
    settings, tenant = current(), context.tenant
    guest = None if tenant == DEFAULT_SLUG else tenant
    rules = Rules.of(settings, is_guest=guest is not None)
    caller = Caller(Guard(rules), max_bytes=settings.http_max_bytes)
    try:
        origin = read_url(wanted.url, rules).origin
        answer = caller.call(_request(wanted, context, settings, guest), _seconds(wanted, context, settings))
    except TargetRefused as refused:
        raise Discard(f"the call was refused: {refused}") from None
    verdict = judge(
        answer.status,
        answer.headers,
        expect=wanted.expect,
        retry_on=wanted.retry_on,
        now=datetime.now(UTC),
    )
    match verdict:
        case Done():
            return result_of(answer, settings.max_result_bytes)
        case Again(None):
            raise UnwantedAnswer(origin, answer.status)
        case Again(after):
            raise Retry(f"{origin} answered {answer.status}", after=after)
        case Never():
            raise Discard(f"{origin} answered {answer.status}")


def read_payload(payload: dict[str, Any]) -> HttpPayload:
    """Reads a payload.

    Raises:
        Discard: it breaks a rule; fields and rules are named, values are not.
    """
    try:
        return HttpPayload.model_validate(payload)
    except ValidationError as error:
        rules = "; ".join(
            f"payload.{'.'.join(str(part) for part in item['loc'])}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)[:5]
        )
        raise Discard(rules) from None


def _request(wanted: HttpPayload, context: JobContext, settings: Settings, guest: str | None) -> Request:
    job_id = str(context.job_id)
    trace = {"traceparent": context.traceparent} if context.traceparent else {}
    # A submitter chooses the body of an `http` job: signed with the callbacks' secrets, it would be a callback.
    if context.callback_of is None:
        secrets = secrets_of(settings.webhook_keys, Purpose.HTTP_JOBS, guest)
    else:
        secrets = secrets_of(settings.callback_keys, Purpose.CALLBACKS, guest)
    signer = Signer(secrets)
    return Request(
        method=wanted.method,
        url=wanted.url,
        headers=wanted.all_headers(),
        body=wanted.content(),
        own={"User-Agent": "DJPS", "X-Job-Id": job_id, "X-Job-Attempt": str(context.attempt), **trace},
        sign=lambda body: signer.headers(job_id, body),
    )


def _seconds(wanted: HttpPayload, context: JobContext, settings: Settings) -> float:
    """The time of the call: what was asked for, and never more than the attempt has left."""
    left = context.deadline - time.monotonic() - MARGIN
    return max(min(wanted.timeout or settings.http_timeout, left), 0.0)


def result_of(answer: Answer, limit: int) -> dict[str, Any]:
    """The job's result: of the body as much as can be kept.

    Args:
        limit: largest result as JSON, bytes.
    """
    kept = {name: answer.headers[name][:1_000] for name in KEPT_HEADERS if name in answer.headers}
    body, truncated = answer.body, answer.truncated
    while True:
        text = _as_text(body, truncated=truncated)
        result: dict[str, Any] = {
            "status": answer.status,
            "headers": kept,
            "body": base64.b64encode(body).decode() if text is None else text,
            "body_encoding": "base64" if text is None else "text",
            "truncated": truncated,
        }
        if not body or len(json.dumps(result, ensure_ascii=False).encode()) <= limit:
            return result
        body, truncated = body[: len(body) // 2], True


def _as_text(body: bytes, *, truncated: bool) -> str | None:
    """The body as text that PostgreSQL can keep, or None; a character that was cut in two is left out."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        if not (truncated and error.end == len(body) and len(body) - error.start < 4):  # noqa: PLR2004 - UTF-8
            return None
        text = body[: error.start].decode()
    return None if "\x00" in text else text
