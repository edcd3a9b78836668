"""Acks of what a broker gave that has gone since: they hold nobody up, and what was not acked comes again."""

from __future__ import annotations

from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.faults.brokers import PATIENCE, Brokers

RECORDS = 60


@pytest.mark.parametrize("by_proxy", [False, True], ids=["straight", "by proxy"])
def test_acks_of_a_broker_that_is_gone_are_stale_and_those_of_the_others_are_not(
    tmp_path: Path, by_proxy: bool
) -> None:
    with Brokers(tmp_path, 2, by_proxy=by_proxy) as brokers, tb.connect(brokers.url) as broker:
        broker.create_topic("t", partitions=6)
        with broker.producer("t") as producer:
            producer.send_many([b"%d" % n for n in range(RECORDS)], [b"%d" % n for n in range(RECORDS)])
        of_gone = {state.partition for state in broker.describe_topic("t").partitions if state.broker == "b1"}
        with broker.consumer("t", "g", idle_timeout=PATIENCE) as consumer:
            batches: list[tb.Batch] = []
            gone: list[tb.Batch] = []
            for batch in consumer:
                batches.append(batch)
                if sum(map(len, batches)) == RECORDS:
                    brokers.processes["b1"].kill()
                    gone = [batch for batch in batches if batch.partition in of_gone]
                    left = [batch for batch in batches if batch.partition not in of_gone]
                    assert gone
                    assert left
                    with pytest.raises(tb.StaleLeaseError, match="or its broker is away"):
                        consumer.ack(gone)
                    consumer.ack(left)
                    break
        brokers.restart("b1")
        with broker.consumer("t", "g", idle_timeout=PATIENCE) as consumer:
            again: list[bytes] = []
            for batch in consumer:
                again += batch.values
                batch.ack()
                if len(again) >= sum(map(len, gone)):
                    break
        assert sorted(again) == sorted(value for batch in gone for value in batch.values)
