"""Orders, and the submissions that are on their way to DJPS."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """What someone bought; `shipped_by` is the job that shipped it."""

    item = models.CharField(max_length=100)
    shipped_by = models.UUIDField(null=True)

    def __str__(self) -> str:
        return f"order {self.pk}: {self.item}"


class Submission(models.Model):
    """A job that is to be submitted: the outbox. It is written with what it is for, and deleted when DJPS has it."""

    key = models.CharField(max_length=255, unique=True)
    payload = models.JSONField()

    def __str__(self) -> str:
        return self.key
