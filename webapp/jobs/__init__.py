"""Jobs: what DJPS exists for. No HTTP and no Celery in here.

A job is a row. It is `queued` until a worker claims it, `processing` under a lease while its handler runs,
and final once it is `completed`, `failed` (in the dead letter queue) or `cancelled`:

             submit                claim               settle
  (none) ----------------> queued ---------> processing ------> completed
                             ^  ^               |  |  |
        retry: run_at later  |  +---------------+  |  +-- exhausted or Discard --> failed (dead letter)
        lease lost: at once  +---------------------+                                  |
                             ^                                         requeue        |
                             +--------------------------------------------------------+
  cancel: queued -> cancelled at once; processing -> asked to stop, then cancelled

`attempt` counts the claims and only grows. It is the fence: a process may write the end of the attempt it
claimed and of no other, so what comes late changes nothing.
"""

from __future__ import annotations

from webapp.jobs.context import JobContext
from webapp.jobs.errors import Cancelled, Discard, Retry, Snooze
from webapp.jobs.handlers import handler

__all__ = ["Cancelled", "Discard", "JobContext", "Retry", "Snooze", "handler"]
