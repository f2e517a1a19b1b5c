from __future__ import annotations

from base64 import b64encode

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from webapp.outbound.signature import Signer

NEW, OLD, OTHER = (f"whsec_{b64encode(letter * 32).decode()}" for letter in (b"n", b"o", b"x"))
BODY = '{"name":"Łódź"}'.encode()


@pytest.mark.parametrize("known", [NEW, OLD])
def test_a_receiver_that_knows_either_secret_can_verify(known):
    headers = Signer([NEW, OLD]).headers("job-1", BODY)
    assert Webhook(known).verify(BODY, headers) == {"name": "Łódź"}
    assert len(headers["webhook-signature"].split()) == 2


def test_another_secret_or_another_body_does_not_verify():
    headers = Signer([NEW]).headers("job-1", BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(BODY, headers | {"webhook-id": "job-2"})


def test_without_a_secret_the_message_is_named_and_not_signed():
    assert set(Signer([]).headers("job-1", BODY)) == {"webhook-id", "webhook-timestamp"}
