"""The forerunner's design, lean: FastAPI in one uvicorn process, INSERT and commit, then RPUSH to Redis."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import os
import uuid
from datetime import datetime
from typing import Any

from fastapi import Depends, FastAPI
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

app = FastAPI()
engine = create_async_engine(os.environ["BENCH_DATABASE"])
sessions = async_sessionmaker(engine, expire_on_commit=False)
redis = Redis.from_url(os.environ["BENCH_REDIS"])


class Base(DeclarativeBase):
    """The tables."""


class Job(Base):
    """A job's row."""

    __tablename__ = "forerunner_jobs"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(default="queued")
    retry_count: Mapped[int] = mapped_column(default=0)
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Submission(BaseModel):
    """A request."""

    payload: dict[str, Any]
    idempotency_key: str | None = None


class Answer(BaseModel):
    """An answer."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    payload: dict[str, Any]
    status: str
    retry_count: int
    idempotency_key: str | None
    created_at: datetime
    updated_at: datetime


async def session() -> Any:
    """One session for a request."""
    async with sessions() as opened:
        yield opened


@app.post("/jobs", status_code=201)
async def submit(wanted: Submission, opened: AsyncSession = Depends(session)) -> Answer:  # noqa: B008, FAST002
    """Stores a job, then tells the workers."""
    job = Job(payload=wanted.payload, idempotency_key=wanted.idempotency_key)
    opened.add(job)
    await opened.commit()
    await opened.refresh(job)
    await redis.rpush("jobs", str(job.id))
    return Answer.model_validate(job)


@app.get("/health")
async def health() -> dict[str, str]:
    """Tells that it is up."""
    return {"status": "ok"}
