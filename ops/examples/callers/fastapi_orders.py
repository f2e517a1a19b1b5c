"""A FastAPI application that hands work to DJPS, and tells its own clients what became of it.

How to run it (`pip install fastapi uvicorn httpx`), beside `python3 -m ops up`:

    DJPS_URL=http://127.0.0.1:8000 uvicorn --app-dir ops/examples/callers fastapi_orders:app --port 8001
    curl http://127.0.0.1:8001/orders/17 -H 'Content-Type: application/json' -d '{"item": "lamp"}'
    curl "http://127.0.0.1:8001/orders/17/01a20af4-1c53-716c-9a00-04d2b42b60c5"  # the id that it answered
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel

#: Seconds that a call may take beside its wait, that the API is asked to wait, and between tries.
TIMEOUT, WAIT, PAUSES = float(os.environ.get("DJPS_TIMEOUT", "5")), 10, (0.2, 0.5, 1)
#: Answers after which the same request may succeed.
PASSING = {409, 429, 500, 502, 503, 504}


class Order(BaseModel):
    """What is bought."""

    item: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the life of the process: it keeps its connections."""
    api = os.environ.get("DJPS_URL", "http://127.0.0.1:8000")
    async with httpx.AsyncClient(base_url=api, timeout=TIMEOUT) as app.state.djps:
        yield


app = FastAPI(lifespan=lifespan)


async def ask(method: str, path: str, **more: Any) -> dict[str, Any]:
    """Makes a call until it is answered; it must be one that may be sent again: with a key, or a GET.

    Raises:
        HTTPException: it was refused, in DJPS's words, or not answered (503).
    """
    for pause in (*PAUSES, None):
        try:
            answer = await app.state.djps.request(method, path, **more)
            said = answer.json()
        except (httpx.TransportError, ValueError) as lost:
            # No answer, half of one, or one that is not JSON: the request may have been carried out.
            refusal = HTTPException(503, f"DJPS does not answer: {lost!r}")
        else:
            if answer.is_success:
                return said
            refusal = HTTPException(answer.status_code, said["detail"])
            if answer.status_code not in PASSING:
                break
        if pause is not None:
            await asyncio.sleep(pause)
    raise refusal


@app.post("/orders/{number}", status_code=202)
async def take(number: int, order: Order) -> JSONResponse:
    """Takes an order; who sends it twice gets the same job."""
    task = os.environ.get("ORDER_TASK", "noop")
    body = {"payload": {"task": task, "number": number, **order.model_dump()}}
    job = await ask("POST", "/jobs", json=body, headers={"Idempotency-Key": f"order-{number}"})
    place = f"/orders/{number}/{job['id']}"
    return JSONResponse({"job": job["id"], "status": job["status"]}, 202, {"Location": place})


@app.get("/orders/{number}/{job_id}")
async def look(number: int, job_id: UUID) -> dict[str, Any]:
    """Answers as soon as the order is done, or after ten seconds with what is known by then."""
    job = await ask("GET", f"/jobs/{job_id}?wait={WAIT}", timeout=WAIT + TIMEOUT)
    if job["payload"].get("number") != number:
        raise HTTPException(404, "this order has no such job")
    return {"status": job["status"], "result": job["result"], "error": job["last_error"]}
