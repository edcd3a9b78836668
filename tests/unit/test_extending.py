"""When leases are extended, and which together: the decisions, without a clock, a thread or a broker."""

import time
import weakref

import pytest

from telemetry_broker import _core
from telemetry_broker.batch import Leased
from telemetry_broker.errors import BrokerError, InvalidArgumentError, NotFoundError, UnavailableError
from telemetry_broker.extending import DEFAULT_EXTENSION, Keep, check_extension, failed, plan
from telemetry_broker.leases import Lease
from telemetry_broker.v1 import broker_pb2 as pb

batches: list[Leased] = []


def lease(received: float, timeout: float, until: float = 1000.0) -> Lease:
    """A lease that a batch has, of this age by a clock that begins at 0."""
    delivery = pb.Delivery(topic="t", lease_id=b"x", visibility_timeout_ms=round(timeout * 1000))
    parsed = _core.Delivery.parse(pb.ReceiveResponse(deliveries=[delivery]).SerializeToString())[0]
    lease = Lease(parsed)
    batches.append(Leased(parsed, lease))
    lease.received = received
    lease.keep = Keep(weakref.ref(batches[-1]), until)
    return lease


def test_a_lease_is_due_when_half_of_it_is_over() -> None:
    one = lease(received=100, timeout=30)
    assert plan([one], 114.9) == ({}, 115)
    assert plan([one], 115) == ({30_000: [one]}, 115)


def test_leases_that_will_soon_be_due_are_extended_along() -> None:
    first, soon, later, fresh = (lease(received, 30) for received in (100, 105, 107, 108))
    due, _ = plan([first, soon, later, fresh], 115)
    assert due == {30_000: [first, soon, later]}


def test_each_length_is_a_call_of_its_own() -> None:
    long, short = lease(100, 30), lease(100, 10)
    assert plan([long, short], 115)[0] == {30_000: [long], 10_000: [short]}


def test_without_a_lease_there_is_nothing_to_wake_for() -> None:
    assert plan([], 115) == ({}, None)


def test_a_lease_is_dropped_when_its_time_is_over_or_nobody_has_the_batch() -> None:
    over, let_go = lease(100, 30, until=110), lease(100, 30)
    batches.pop()
    assert plan([over, let_go], 115) == ({}, None)
    assert over.keep is None
    assert let_go.keep is None


def test_a_tiny_lease_does_not_keep_the_thread_busy() -> None:
    assert plan([lease(100, 0.001)], 100)[1] == pytest.approx(100.01)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (UnavailableError("away", retry_after=0.25), True),
        (BrokerError("full", code="log.full", retry_after=1), True),
        (NotFoundError("the topic is gone", code="topic.not_found"), False),
    ],
)
def test_a_failed_attempt_is_repeated_where_waiting_may_help(error: BrokerError, again: bool) -> None:
    one = lease(time.monotonic() - 20, 30, until=time.monotonic() + 100)
    failed([one], error)
    due, next_due = plan([one], time.monotonic())
    assert due == {}
    assert (next_due is not None) == again
    if next_due is not None:
        assert 2.5 < next_due - time.monotonic() <= 3


def test_the_default_is_for_iterating_only() -> None:
    assert check_extension(None) == (DEFAULT_EXTENSION, 0)
    assert check_extension(60) == (60, 60)
    assert check_extension(0) == (0, 0)
    with pytest.raises(InvalidArgumentError, match=r"max_lease_extension=-1: give 0 .no extension. to 43200 s"):
        check_extension(-1)
