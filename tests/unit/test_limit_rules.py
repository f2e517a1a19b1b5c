from __future__ import annotations

import pytest
from pydantic import ValidationError

from webapp.api.flow_schemas import LimitsRequest, QueueLimitsRequest
from webapp.flow.limits import NO_LIMITS, KeyOrder, Limits, QueueLimits, Rate
from webapp.flow.model import lane_of


@pytest.mark.parametrize(
    ("body", "limits"),
    [
        ({}, NO_LIMITS),
        ({"concurrency": None, "rate": None, "keys": None}, NO_LIMITS),
        ({"concurrency": 4}, QueueLimits(Limits(4))),
        ({"rate": {"limit": 100}}, QueueLimits(Limits(rate=Rate(100, 1.0, 2)))),
        ({"rate": {"limit": 10, "per": 60, "burst": None}}, QueueLimits(Limits(rate=Rate(10, 60.0, 1)))),
        ({"rate": {"limit": 100, "per": 60, "burst": 5}}, QueueLimits(Limits(rate=Rate(100, 60.0, 5)))),
        ({"keys": {"concurrency": 1}, "fair": True}, QueueLimits(keys=Limits(1), fair=True)),
        ({"keys": {"order": "fifo"}}, QueueLimits(key_order=KeyOrder.FIFO)),
        ({"keys": {"concurrency": 1, "order": "fifo"}}, QueueLimits(keys=Limits(1), key_order=KeyOrder.FIFO)),
        ({"keys": {"order": None}, "ageing": None}, NO_LIMITS),
        ({"ageing": 60}, QueueLimits(ageing=60.0)),
    ],
)
def test_a_body_becomes_limits_and_back(body, limits):
    assert QueueLimitsRequest.model_validate(body).given() == limits
    assert QueueLimitsRequest.model_validate(limits.document()).given() == limits


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"concurency": 4}, ("concurency",)),
        ({"concurrency": 0}, ("concurrency",)),
        ({"concurrency": True}, ("concurrency",)),
        ({"concurrency": 1.5}, ("concurrency",)),
        ({"rate": 5}, ("rate",)),
        ({"rate": {}}, ("rate", "limit")),
        ({"rate": {"limit": 1, "per": 0.01}}, ("rate", "per")),
        ({"rate": {"limit": 1, "per": float("nan")}}, ("rate", "per")),
        ({"rate": {"limit": 1, "burst": 2}}, ("rate", "burst")),
        ({"keys": {"rate": {"limit": -1}}}, ("keys", "rate", "limit")),
        ({"keys": {"weight": 1}}, ("keys", "weight")),
        ({"fair": 1}, ("fair",)),
        ({"keys": {"order": "lifo"}}, ("keys", "order")),
        ({"keys": {"concurrency": 2, "order": "fifo"}}, ("keys", "order")),
        ({"order": "fifo"}, ("order",)),
        ({"ageing": 0}, ("ageing",)),
        ({"ageing": float("nan")}, ("ageing",)),
        ({"ageing": 1e9}, ("ageing",)),
        ({"keys": {"ageing": 60}}, ("keys", "ageing")),
    ],
)
def test_what_breaks_a_rule_is_named(body, field):
    with pytest.raises(ValidationError) as refused:
        QueueLimitsRequest.model_validate(body)
    assert [error["loc"] for error in refused.value.errors()] == [field]


def test_a_task_has_no_keys():
    assert LimitsRequest.model_validate({"concurrency": 2}).given() == QueueLimits(Limits(2))
    with pytest.raises(ValidationError):
        LimitsRequest.model_validate({"keys": None})


def test_a_lane_is_the_same_for_the_same_names_and_fits_a_bigint():
    lanes = {lane_of(queue, key) for queue in ("a", "b") for key in (None, "a", "b", "ü" * 200)}
    assert len(lanes) == 8
    assert all(-(2**63) <= lane < 2**63 for lane in lanes)
