"""`manage.py send_submissions`: sends what could not be sent when it was committed. Run it every minute."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from shop.models import Submission
from shop.outbox import send


class Command(BaseCommand):
    """Sends the outbox, the oldest first."""

    help = __doc__

    def handle(self, *_: Any, **__: Any) -> None:
        """Sends all; what fails stays for the next time."""
        sent = [send(waiting) for waiting in Submission.objects.order_by("pk")]
        self.stdout.write(f"sent {sum(sent)} of {len(sent)}")
