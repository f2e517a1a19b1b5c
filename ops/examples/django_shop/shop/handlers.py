"""What DJPS's workers run; `HANDLERS=shop.handlers`."""

from __future__ import annotations

from typing import Any

import django
from django.db import close_old_connections

from webapp.jobs import Discard, JobContext, handler

django.setup()

from shop.models import Order  # noqa: E402  # Models can be imported only when Django is set up.


@handler("ship-order", max_retries=5, timeout=30)
def ship_order(payload: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Ships an order, once however often it runs: the job that shipped it stands in the order."""
    close_old_connections()
    # One statement, so two attempts cannot both find it unshipped.
    shipped = Order.objects.filter(pk=payload["order"], shipped_by=None).update(shipped_by=context.job_id)
    order = Order.objects.filter(pk=payload["order"]).first()
    if order is None:
        raise Discard("there is no such order")
    return {"item": order.item, "was_shipped_before": not shipped}
