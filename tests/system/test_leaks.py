"""What is secret stays where it belongs: after all that can be done with it, it is searched for in what others read."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import psycopg2
import pytest
import requests
from stacks import api_of, ops, surroundings

from ops.stack import passwords, postgres
from webapp.access.secret import new_key

pytestmark = pytest.mark.system

#: What submissions carry: in a payload, a key of idempotency, the query of a callback, the header of an http job.
CARRIED = {
    name: f"canary-{name}-7f3a91c2d4"
    for name in ("payload", "idempotency", "callback", "header", "tag", "refused", "reason")
}
#: What settings carry.
SET = {
    "WEBHOOK_SECRETS": "whsec_" + base64.b64encode(b"canary of webhooks, 32 characters").decode(),
    "CALLBACK_SECRETS": "whsec_" + base64.b64encode(b"canary of callbacks, 32 charactrs").decode(),
    "FLOWER_BASIC_AUTH": "ada:canary-of-flower-7f3a91c2d4",
}
#: What a payload is stored under that no row may have: its statement fails in the database, which quotes the row.
REFUSES = (
    f"ALTER TABLE jobs ADD CONSTRAINT refused CHECK (payload->>'for' <> '{CARRIED['refused']}') NOT VALID"
)
#: What a key without jobs:content may see all the same: by these jobs are found.
SHOWN = {"tag", "idempotency", "reason"}


def spellings(secret: str) -> set[bytes]:
    """A text as it is, in hexadecimal digits, and in base64 wherever it begins."""
    raw = secret.encode()
    shifted = {base64.b64encode(b"\0" * lead + raw)[4 if lead else 0 : -4] for lead in range(3)}
    return {raw, raw.hex().encode(), raw.hex().upper().encode(), *shifted}


def found_in(content: bytes, secrets: dict[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if any(one in content for one in spellings(secret))]


def database(stack):
    password = passwords.kept(Path(stack["DJPS_DATA_DIR"]), "postgres")
    return psycopg2.connect(postgres.url(int(stack["POSTGRES_PORT"]), password).replace("+psycopg2", ""))


def files_of(*folders: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder.parent)): file.read_bytes()
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_the_search_finds_what_is_there():
    text = "canary-payload"
    hidden = {
        "plain": text.encode(),
        "hex": text.encode().hex().encode(),
        **{f"base64 {lead}": base64.b64encode(b"x" * lead + text.encode() + b"yy") for lead in range(4)},
    }
    assert all(found_in(b"-" + content + b"-", {"it": text}) for content in hidden.values())
    assert not found_in(b"canary", {"it": text})


@pytest.fixture(scope="module")
def stack():
    with surroundings() as environment:
        environment |= {"API_AUTH": "keys", **SET}
        try:
            ops(environment, "up", "--detach")
            yield environment
        finally:
            ops(environment, "down")


@pytest.fixture(scope="module")
def used(stack):
    """Every secret there is, after it was used; and what the API has answered, but to those who may see it."""
    api = api_of(stack)
    made = ("access", "key", "create", "robot", "--role", "operator")
    keys = {
        "admin": ops(stack, "access", "init").strip().splitlines()[-1],
        "robot": ops(stack, *made).strip().splitlines()[-1],
        "viewer": ops(stack, "access", "key", "create", "viewer", "--role", "viewer")
        .strip()
        .splitlines()[-1],
        "unknown": new_key(),
    }
    answers = []

    def ask(key, method, path, **given):
        headers = {"Authorization": f"Bearer {keys[key]}"} if key else {}
        answer = requests.request(method, api + path, headers=headers, timeout=30, **given)
        answers.append((key, answer))
        return answer

    def post(**body):
        return ask("robot", "POST", "/jobs", json=body)

    keys["rotated"] = ops(stack, "access", "key", "rotate", "2").strip().splitlines()[-1]
    body = {"payload": {"task": "noop", "for": CARRIED["payload"]}, "tags": [CARRIED["tag"]]}
    body |= {"callback_url": f"https://example.com/?token={CARRIED['callback']}"}
    done = post(**body, idempotency_key=CARRIED["idempotency"]).json()
    post(payload={"task": "fail", "for": CARRIED["payload"]}, max_retries=0)
    headers = {"Authorization": CARRIED["header"]}
    post(payload={"task": "http", "url": "http://127.0.0.1:1/", "headers": headers}, max_retries=0)
    post(payload={"task": "noop", "for": CARRIED["payload"], "nul": "\0"})
    post(payload=[CARRIED["payload"]])
    ask("robot", "POST", "/jobs", data=json.dumps(CARRIED["payload"])[:-1])
    ended = ask("robot", "GET", f"/jobs/{done['id']}?wait=20").json()
    assert ended["status"] == "completed"
    ask("robot", "POST", f"/jobs/{done['id']}/retry", json={"reason": CARRIED["reason"]})
    for key in ("unknown", "viewer", None):
        ask(key, "POST", "/jobs", json=body)
        ask(key, "GET", "/jobs", params={"payload": json.dumps({"for": CARRIED["payload"]})})
        for part in ("", "/attempts", "/explain", "/events"):
            ask(key, "GET", f"/jobs/{done['id']}{part}")
    ask(None, "GET", f"/jobs?key={keys['robot']}")
    with database(stack) as connection, connection.cursor() as cursor:
        cursor.execute(REFUSES)
    assert post(payload={"task": "noop", "for": CARRIED["refused"]}).status_code == 500
    return keys, answers


def test_no_key_and_no_payload_is_in_a_log_a_metric_or_redis(stack, used):
    keys, _ = used
    data = Path(stack["DJPS_DATA_DIR"])
    of_servers = {name: passwords.kept(data, name) for name in ("postgres", "redis")}
    secrets = keys | SET | CARRIED | of_servers
    content = files_of(data / "logs", data / "metrics", data / "redis" / "appendonlydir")
    content["/metrics"] = requests.get(
        f"{api_of(stack)}/metrics", headers={"Authorization": f"Bearer {keys['robot']}"}, timeout=10
    ).content
    assert {"logs/api.log", "logs/worker.log", "logs/postgres.log", "logs/maintenance.log"} <= set(content)
    assert any(name.startswith("appendonlydir") and text for name, text in content.items())
    assert {name: found for name, text in content.items() if (found := found_in(text, secrets))} == {}


def test_an_answer_shows_none_of_it_to_whom_it_does_not_belong(used):
    keys, answers = used
    shown = []
    for key, answer in answers:
        is_theirs = key == "robot" and answer.status_code < 400
        content = answer.content + json.dumps(dict(answer.headers)).encode()
        of_jobs = {} if is_theirs else CARRIED
        if key == "viewer" and answer.ok:
            of_jobs = {name: secret for name, secret in CARRIED.items() if name not in SHOWN}
        secrets = keys | SET | of_jobs
        shown += [(key, answer.request.method, answer.status_code, found_in(content, secrets))]
    assert len(shown) > 15
    assert [one for one in shown if one[3]] == []


def test_the_text_of_a_key_is_nowhere_in_the_database(stack, used):
    keys, _ = used
    data = Path(stack["DJPS_DATA_DIR"])
    with database(stack) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT query FROM pg_stat_activity")
        running = "\n".join(query or "" for (query,) in cursor.fetchall()).encode()
        cursor.execute("CHECKPOINT")
    assert "pg_stat_activity" in running.decode()
    assert found_in(running, keys | SET) == []
    tables = files_of(data / "postgres" / "base", data / "postgres" / "pg_wal")
    assert len(tables) > 100
    assert {name: found for name, text in tables.items() if (found := found_in(text, keys | SET))} == {}
