"""Takes orders: `POST /orders` with `item=`, `GET /orders/NUMBER`."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from shop.models import Order
from shop.outbox import submit


@require_POST
def take(request: HttpRequest) -> JsonResponse:
    """Takes an order; order and submission are committed together, or neither is."""
    with transaction.atomic():
        order = Order.objects.create(item=request.POST["item"])
        submit({"task": "ship-order", "order": order.pk}, key=f"ship-order-{order.pk}")
    return JsonResponse({"order": order.pk}, status=201)


@require_GET
def show(request: HttpRequest, number: int) -> JsonResponse:
    """Says whether an order is shipped, and by which job."""
    order = get_object_or_404(Order, pk=number)
    return JsonResponse({"order": order.pk, "item": order.item, "shipped_by": order.shipped_by})


urlpatterns = [path("orders", take), path("orders/<int:number>", show)]
