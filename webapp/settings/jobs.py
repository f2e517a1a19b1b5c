"""Jobs: which handlers run them, how often they are tried, how long and how large they may be; the workers that run them."""

from __future__ import annotations

from pydantic import Field

from webapp.settings.group import KIBIBYTE, Group, items_of


class JobSettings(Group):
    """Jobs and the workers that run them."""

    simulated_job_url: str = Field(
        "https://httpbin.org/delay/1", description="URL the `simulated` handler calls."
    )
    simulated_failure_rate: float = Field(
        0.2, ge=0, le=1, description="Share of `simulated` jobs that fail, 0 to 1."
    )
    simulated_timeout: float = Field(
        5.0, gt=0, le=300, description="Seconds before `simulated` gives up its call."
    )
    handlers: str = Field("", description="Modules with handlers of your own, comma-separated dotted names.")
    default_handler: str = Field(
        "simulated",
        description="Handler of a job whose payload names none, and of an unknown task while HANDLERS is empty; empty: refuse such jobs.",
    )
    queues: str = Field(
        "", description="Queues jobs may ask for beside those that handlers name, comma-separated."
    )
    max_job_retries: int = Field(3, ge=0, le=100, description="Retries after the first attempt, by default.")
    backoff_base: float = Field(2.0, ge=1, le=100, description="Retry n waits BACKOFF_BASE ** n seconds.")
    max_backoff: float = Field(60.0, ge=0, le=86_400, description="Longest wait before a retry, seconds.")
    backoff_jitter: float = Field(
        0.0, ge=0, le=1, description="Share of a wait that is random, 0 (none) to 1."
    )
    job_timeout: float = Field(300.0, gt=0, le=86_400, description="Seconds an attempt may take, by default.")
    max_payload_bytes: int = Field(
        256 * KIBIBYTE, ge=1_024, le=16_777_216, description="Largest body, bytes."
    )
    max_result_bytes: int = Field(
        64 * KIBIBYTE, ge=0, le=16_777_216, description="Largest kept result, bytes."
    )
    keep_job_logs: bool = Field(
        default=False,
        description="Keep what handlers log with their jobs, the last 200 lines of each; a handler's keep_log comes before it.",
    )
    num_workers: int = Field(2, ge=1, le=256, description="Prefork children of a worker.")
    max_tasks_per_child: int = Field(250_000, ge=1, description="Jobs a child runs before it is replaced.")
    stuck_job_threshold: int = Field(60, ge=3, le=3_600, description="Lease of a running job, seconds.")
    stuck_check_interval: float = Field(
        10, ge=0.5, le=3_600, description="Seconds between looks for stuck jobs."
    )
    shutdown_grace: float = Field(20.0, ge=0, le=3_600, description="Seconds running jobs get after SIGTERM.")
    cancel_grace: float = Field(
        10.0,
        ge=2,
        le=3_600,
        description="Seconds a running job gets to stop once its cancellation was asked.",
    )

    @property
    def handler_modules(self) -> tuple[str, ...]:
        """The dotted names in HANDLERS, in order."""
        return items_of(self.handlers)

    @property
    def queue_names(self) -> tuple[str, ...]:
        """The names in QUEUES, in order."""
        return items_of(self.queues)
