"""A consumer group over several brokers that it has not come to at once."""

from pathlib import Path

import telemetry_broker as tb
from tests.integration.service_processes import BrokerProcess, listed


def test_the_lag_holds_what_waits_at_a_broker_that_the_group_has_not_come_to(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "0") as one, BrokerProcess(tmp_path / "1") as two:
        for broker, count in ((one, 3), (two, 5)):
            with tb.connect(broker.url) as alone:
                alone.create_topic("t", partitions=1)
                with alone.producer("t") as producer:
                    producer.send_many([b"x"] * count)
        with tb.connect(one.url) as alone, alone.consumer("t", group="g") as consumer:
            consumer.receive(max_records=1, wait=20).ack()
        with tb.connect(f"grpc://{listed(one, two)}") as both:
            state = both.describe_group("t", "g")
            assert {part.broker: part.lag for part in state.partitions} == {"b-0": 2, "b-1": 5}
            assert state.lag == 7
            with both.consumer("t", group="g", idle_timeout=0.5) as consumer:
                for batch in consumer:
                    batch.ack()
            assert both.describe_group("t", "g").lag == 0
