"""The page of metrics: joined from that of the process and those of others, and bounded whatever clients send."""

from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

import telemetry_broker as tb
from telemetry_broker import _core
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.observability import metrics

HOSTILE = 'x"} 1\n# HELP forged Help.\n# TYPE forged gauge\nforged{y="\\'


def sample(page: bytes, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(page.decode())
    found = [one.value for family in families for one in family.samples if (one.name, one.labels) == (name, labels)]
    (value,) = found
    return value


def test_a_family_of_two_pages_stands_once_with_the_samples_of_both() -> None:
    metrics.MESSAGES_PRODUCED.labels("joined", "t").inc(3)
    core = _core.Broker(None)
    core.call("CreateTopic", pb.CreateTopicRequest(name="t", config=pb.TopicConfig(partitions=2)).SerializeToString())
    core.call("Produce", pb.ProduceRequest(topic="t", records=[pb.Record(value=b"1")]).SerializeToString())
    page = metrics.render(core.render_metrics("broker"), b"")
    core.close()
    assert sample(page, "messages_produced_total", service="joined", topic="t") == 3
    assert sample(page, "messages_produced_total", service="broker", topic="t") == 1
    assert sample(page, "broker_partitions", service="broker", topic="t") == 2
    assert sample(page, "process_cpu_seconds_total") > 0
    heads = Counter(line.split()[2] for line in page.decode().splitlines() if line.startswith("# TYPE "))
    assert set(heads.values()) == {1}


def test_a_broker_without_a_topic_has_families_without_a_sample() -> None:
    core = _core.Broker(None)
    page = metrics.render(core.render_metrics("broker"))
    core.close()
    names = [family.name for family in text_string_to_metric_families(page.decode())]
    assert len(names) == len(set(names))
    assert "message_queue_size" in names


def test_a_label_may_hold_anything() -> None:
    core = _core.Broker(None)
    page = metrics.render(core.render_metrics(HOSTILE))
    core.close()
    assert sample(page, "broker_groups_expired_total", service=HOSTILE) == 0
    assert "forged" not in {family.name for family in text_string_to_metric_families(page.decode())}


def test_a_closed_broker_has_no_metrics() -> None:
    core = _core.Broker(None)
    core.close()
    with pytest.raises(tb.ClosedError):
        core.render_metrics("broker")


def test_words_that_clients_make_up_are_one_method() -> None:
    assert [metrics.method_label(method) for method in ("GET", "BREW", "get", "")] == ["GET", "other", "other", "other"]
