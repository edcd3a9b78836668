"""A trace goes through every broker and both faces."""

from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import telemetry_broker as tb
from telemetry_broker import tracing
from tests.integration.contract.engines import TIMEOUT


def test_a_batch_is_linked_to_what_sent_its_records(broker: tb.Broker, spans: InMemorySpanExporter) -> None:
    broker.create_topic("t", partitions=1)
    with broker.producer("t") as producer:
        with tracing.send(producer) as headers:
            producer.send(b"one", headers=headers)
        with tracing.send(producer, count=2) as headers:
            producer.send_many([b"two", b"three"], headers=headers)
        producer.send(b"without")
    with broker.consumer("t", "g", idle_timeout=TIMEOUT) as consumer:
        for batch in consumer:
            with tracing.process(batch):
                batch.ack()
            break
    *sent, processed = spans.get_finished_spans()
    assert [(span.name, span.kind) for span in sent] == [("send t", trace.SpanKind.PRODUCER)] * 2
    assert (processed.name, processed.kind) == ("process t", trace.SpanKind.CONSUMER)
    assert [link.context.span_id for link in processed.links] == [span.context.span_id for span in sent]
    assert processed.attributes is not None
    assert processed.attributes["messaging.consumer.group.name"] == "g"
    assert processed.attributes["messaging.batch.message_count"] == 4


def test_a_record_keeps_its_context_in_the_dead_letter_topic(broker: tb.Broker, spans: InMemorySpanExporter) -> None:
    broker.create_topic("t", partitions=1)
    with broker.producer("t") as producer, tracing.send(producer) as headers:
        producer.send(b"bad", headers=headers)
    with broker.consumer("t", "g") as consumer:
        consumer.receive(wait=TIMEOUT).nack(dead_letter=True, reason="bad")
    with broker.consumer("t.dlq", "g") as consumer, tracing.process(consumer.receive(wait=TIMEOUT)):
        pass
    sent, processed = spans.get_finished_spans()
    assert [link.context.span_id for link in processed.links] == [sent.context.span_id]
