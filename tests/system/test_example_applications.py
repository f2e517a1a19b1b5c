"""The examples of a Django shop and a FastAPI application, served as their head comments say, beside a real stack."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from conftest import Fleet
from lossy import losing_answers

from ops.stack import ports

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "ops/examples"
SHOP = EXAMPLES / "django_shop"
TIMEOUT = 30


@pytest.fixture(scope="module")
def serving(eventually):
    """Runs a server until a block ends; begins when it answers."""

    @contextmanager
    def serve(command, environment, url):
        with tempfile.TemporaryFile("w+") as log, requests.Session() as client:
            process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
            try:
                eventually(lambda: process.poll() is not None or answers(client, url), TIMEOUT)
                log.seek(0)
                assert process.poll() is None, log.read()
                yield client
            finally:
                process.terminate()
                process.wait(TIMEOUT)

    return serve


def answers(client, url):
    try:
        return client.get(url, timeout=5).status_code > 0
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def shop_environment(tmp_path_factory):
    """What the shop's processes and the workers are given beside what all are given."""
    folder = tmp_path_factory.mktemp("shop")
    return {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, SHOP))),
        "DJANGO_SETTINGS_MODULE": "project",
        "SHOP_DATABASE": str(folder / "shop.db"),
    }


@pytest.fixture(scope="module")
def shop_fleet(tmp_path_factory, shop_environment, migrated_database):
    """A stack whose workers have the shop's handler."""
    with migrated_database("djps_examples_django") as url:
        made = Fleet(tmp_path_factory.mktemp("django"), url, migrated=True)
        made.environment |= {"HANDLERS": "shop.handlers", **shop_environment, "DJPS_URL": made.url}
        manage(made, "migrate", "--run-syncdb", "--verbosity", "0")
        try:
            made.up()
            yield made
        finally:
            made.stop_all()


def manage(fleet, *words, **settings):
    """Runs a command of the shop's manage.py; gives what it printed."""
    done = subprocess.run(
        [sys.executable, str(SHOP / "manage.py"), *words],
        env=fleet.environment | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def script(fleet, text, **settings):
    """Runs a script with the shop's models; gives what it printed."""
    head = "import django; django.setup()\nfrom shop.models import Order, Submission\n"
    done = subprocess.run(
        [sys.executable, "-c", head + text],
        env=fleet.environment | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def shop(shop_fleet, serving):
    """Runs the shop's web server; gives a client and its address."""

    @contextmanager
    def run(**settings):
        port = ports.free()
        url = f"http://127.0.0.1:{port}/orders"
        command = [sys.executable, str(SHOP / "manage.py"), "runserver", "--noreload", str(port)]
        with serving(command, shop_fleet.environment | settings, f"{url}/0") as client:
            yield client, url

    return run


def test_an_order_is_shipped_after_its_commit(shop_fleet, shop, eventually):
    with shop() as (client, url):
        taken = client.post(url, data={"item": "lamp"}, timeout=TIMEOUT)
        assert taken.status_code == 201
        number = taken.json()["order"]
        job = eventually(lambda: client.get(f"{url}/{number}", timeout=TIMEOUT).json()["shipped_by"])
    done = shop_fleet.wait_for({"id": job})
    assert (done["status"], done["result"]) == ("completed", {"item": "lamp", "was_shipped_before": False})
    assert script(shop_fleet, "print(Submission.objects.count())") == "0"
    again = shop_fleet.wait_for(shop_fleet.post("ship-order", order=number))
    assert again["result"] == {"item": "lamp", "was_shipped_before": True}
    assert script(shop_fleet, f"print(Order.objects.get(pk={number}).shipped_by)") == job


def test_an_order_is_taken_while_djps_is_away_and_shipped_later(shop_fleet, shop):
    with shop(DJPS_URL=f"http://127.0.0.1:{ports.free()}") as (client, url):
        taken = client.post(url, data={"item": "sofa"}, timeout=TIMEOUT)
        assert taken.status_code == 201
    number = taken.json()["order"]
    assert script(shop_fleet, "print(*Submission.objects.all())") == f"ship-order-{number}"
    # The first answer is lost, and the second is that DJPS is busy: the submission stays, and is sent again.
    with losing_answers(shop_fleet.url) as server:
        said = [manage(shop_fleet, "send_submissions", DJPS_URL=server.url) for _ in range(4)]
    assert said == ["sent 0 of 1\n", "sent 0 of 1\n", "sent 1 of 1\n", "sent 0 of 0\n"]
    ((job,),) = shop_fleet.rows("SELECT id FROM jobs WHERE payload->>'order' = %s", str(number))
    assert shop_fleet.wait_for({"id": str(job)})["status"] == "completed"


def test_what_is_rolled_back_submits_nothing(shop_fleet):
    text = """
from django.db import transaction
from shop.outbox import submit
try:
    with transaction.atomic():
        order = Order.objects.create(item="chair")
        submit({"task": "ship-order", "order": order.pk}, f"ship-order-{order.pk}")
        raise ValueError
except ValueError:
    print(order.pk, Submission.objects.filter(key=f"ship-order-{order.pk}").count())
"""
    number, waiting = script(shop_fleet, text).split()
    assert waiting == "0"
    assert shop_fleet.rows("SELECT id FROM jobs WHERE payload->>'order' = %s", number) == []


def test_an_order_that_is_not_there_is_a_dead_letter(shop_fleet):
    dead = shop_fleet.wait_for(shop_fleet.post("ship-order", order=0))
    assert (dead["attempt"], dead["last_error"]) == (1, "Discard: there is no such order")


@pytest.fixture(scope="module")
def fastapi(serving):
    """Runs the FastAPI application; gives a client and its address."""

    @contextmanager
    def run(djps, **settings):
        port = ports.free()
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES / "callers")]
        given = {"PATH": os.environ["PATH"], "DJPS_URL": djps, **settings}
        with serving([*command, "fastapi_orders:app", "--port", str(port)], given, f"{url}/docs") as client:
            yield client, f"{url}/orders"

    return run


def test_an_order_by_fastapi_is_one_job_though_an_answer_is_lost(fleet, fastapi):
    with losing_answers(fleet.url) as server, fastapi(server.url, ORDER_TASK="sleep") as (client, url):
        taken = client.post(f"{url}/17", json={"item": "lamp"}, timeout=TIMEOUT)
        assert taken.status_code == 202, taken.text
        again = client.post(f"{url}/17", json={"item": "lamp"}, timeout=TIMEOUT)
        assert again.json()["job"] == taken.json()["job"]
        place = url.removesuffix("/orders") + taken.headers["Location"]
        looks = [client.get(place, timeout=TIMEOUT).json() for _ in range(2)]
        assert client.get(place.replace("/17/", "/18/"), timeout=TIMEOUT).status_code == 404
    assert [look["status"] for look in looks] == ["processing", "completed"]
    assert server.keys == ["order-17"] * 4
    made = fleet.rows("SELECT id FROM jobs WHERE payload->>'number' = '17' AND payload->>'item' = 'lamp'")
    assert [str(one) for (one,) in made] == [taken.json()["job"]]


def test_fastapi_says_what_djps_refuses_and_that_it_is_away(fleet, fastapi):
    with fastapi(fleet.url) as (client, url):
        refused = client.post(f"{url}/{2**70}", json={"item": "lamp"}, timeout=TIMEOUT)
        unknown = client.get(f"{url}/17/{fleet.post('noop')['id'][:-4]}0000", timeout=TIMEOUT)
    assert (refused.status_code, unknown.status_code) == (422, 404)
    assert "64 bits" in refused.json()["detail"]
    with fastapi(f"http://127.0.0.1:{ports.free()}") as (client, url):
        away = client.post(f"{url}/19", json={"item": "lamp"}, timeout=TIMEOUT)
    assert away.status_code == 503
    assert "does not answer" in away.json()["detail"]
