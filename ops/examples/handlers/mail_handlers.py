"""Sends a mail for each job, over SMTP.

How to run it, beside a mail server at port 1025:

    SMTP_PORT=1025 PYTHONPATH=ops/examples/handlers HANDLERS=mail_handlers python3 -m ops up
    curl http://127.0.0.1:8000/jobs -H 'Content-Type: application/json' -d '{"payload": {"task": "send-mail",
        "to": "ada@example.org", "subject": "Your order", "text": "It is on its way."}}'

SMTP has no idempotency key. A worker that dies after the mail and before its record sends the mail again, under the same
Message-ID, by which mailboxes and mail services know that it is the same one.
"""

from __future__ import annotations

import os
import smtplib
from email.message import EmailMessage
from email.utils import format_datetime, localtime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from webapp.jobs import Discard, JobContext, Retry, handler

HOST, PORT = os.environ.get("SMTP_HOST", "127.0.0.1"), int(os.environ.get("SMTP_PORT", "25"))
SENDER = os.environ.get("MAIL_SENDER", "shop@example.org")
#: Seconds that the server may be silent.
TIMEOUT = 10
#: From this code on a refusal is for good (RFC 5321).
PERMANENT = 500
#: One line, so that no header can be slipped in.
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\r\n]+$")]


class Mail(BaseModel):
    """What a submission must say; the API refuses what does not fit."""

    to: Annotated[str, Field(max_length=254, pattern=r"^[^@\s<>,;]+@[^@\s<>,;]+$")]
    subject: Line
    text: str


@handler("send-mail", queue="mail", max_retries=6, backoff=[5, 60, 600], timeout=60, model=Mail)
def send_mail(payload: dict[str, Any], context: JobContext) -> dict[str, str]:
    """Hands one mail to the mail server; refusals for good are not tried again."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = SENDER, payload["to"], payload["subject"]
    mail["Date"] = format_datetime(localtime())
    mail["Message-ID"] = f"<{context.job_id}@{SENDER.partition('@')[2]}>"
    mail.set_content(payload["text"])
    try:
        with smtplib.SMTP(HOST, PORT, timeout=TIMEOUT) as server:
            server.send_message(mail)
    except smtplib.SMTPRecipientsRefused as refused:
        code, words = refused.recipients[payload["to"]]
        said = f"{code} {words.decode(errors='replace')}"
        raise (Discard(said) if code >= PERMANENT else Retry(said)) from None
    return {"message_id": mail["Message-ID"]}
