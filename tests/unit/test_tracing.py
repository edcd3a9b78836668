"""Spans around sending and handling, and the W3C trace context between them, against OpenTelemetry's SDK."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import telemetry_broker as tb
from telemetry_broker import _core, aio, testing, tracing
from telemetry_broker.v1 import broker_pb2 as pb

PARENT = b"00-%032x-%016x-01"


@pytest.fixture
def broker() -> Iterator[tb.Broker]:
    with testing.broker() as broker:
        broker.create_topic("t", partitions=1)
        yield broker


def records(*headers: dict[str, bytes]) -> tb.Records:
    """Records with these headers."""
    encoded = [
        pb.Record(headers=[pb.Header(name=name, value=value) for name, value in each.items()]) for each in headers
    ]
    response = pb.ReceiveResponse(deliveries=[pb.Delivery(topic="t", records=encoded)])
    return tb.Records(_core.Delivery.parse(response.SerializeToString())[0])


def contexts(*parents: bytes) -> list[tuple[int, int]]:
    """The (trace id, span id) of the links that records with these headers give."""
    links = tracing.links(records(*({"traceparent": parent} for parent in parents)))
    return [(link.context.trace_id, link.context.span_id) for link in links]


def receive(broker: tb.Broker, group: str = "g") -> tb.Batch:
    return broker.consumer("t", group).receive(wait=10)


def test_a_record_carries_the_span_that_sent_it(broker: tb.Broker, spans: InMemorySpanExporter) -> None:
    with broker.producer("t") as producer, tracing.send(producer) as headers:
        producer.send(b"one", headers={**headers, "unit": b"W"})
    (sent,) = spans.get_finished_spans()
    assert (sent.name, sent.kind, sent.parent) == ("send t", trace.SpanKind.PRODUCER, None)
    assert sent.attributes == {
        "messaging.system": "telemetry_broker",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "t",
    }
    context = sent.context
    parent = b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)
    assert receive(broker).headers == [{"traceparent": parent, "unit": b"W"}]


def test_a_batch_is_handled_in_a_span_with_links_to_its_senders(broker: tb.Broker, spans: InMemorySpanExporter) -> None:
    with broker.producer("t") as producer:
        for values in [[b"a", b"b"], [b"c"]]:
            with tracing.send(producer, count=len(values)) as headers:
                producer.send_many(values, headers=headers)
        producer.send(b"without")
    batch = receive(broker)
    with tracing.process(batch) as span:
        assert trace.get_current_span() is span
        batch.ack()
    *sent, processed = spans.get_finished_spans()
    assert [span.attributes and span.attributes["messaging.batch.message_count"] for span in sent] == [2, 1]
    assert (processed.name, processed.kind, processed.parent) == ("process t", trace.SpanKind.CONSUMER, None)
    assert [link.context for link in processed.links] == [_remote(span.context) for span in sent]
    assert processed.attributes == {
        "messaging.system": "telemetry_broker",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "t",
        "messaging.destination.partition.id": "0",
        "messaging.consumer.group.name": "g",
        "messaging.batch.message_count": 4,
        "messaging.telemetry_broker.offset": 0,
        "messaging.telemetry_broker.attempt": 1,
    }
    assert processed.status.is_unset


def _remote(context: trace.SpanContext) -> trace.SpanContext:
    return trace.SpanContext(context.trace_id, context.span_id, True, context.trace_flags, context.trace_state)


def test_spans_are_children_of_the_current_one(broker: tb.Broker, spans: InMemorySpanExporter) -> None:
    with broker.producer("t") as producer, tracing.send(producer) as headers:
        producer.send(b"one", headers=headers)
    with tracing.process(receive(broker)), broker.producer("t") as producer, tracing.send(producer):
        pass
    _, forwarded, processed = spans.get_finished_spans()
    assert forwarded.parent == processed.context


def test_several_batches_are_handled_in_one_span(spans: InMemorySpanExporter) -> None:
    with testing.broker() as broker:
        broker.create_topic("t", partitions=2)
        with broker.producer("t") as producer:
            for partition in (0, 1):
                with tracing.send(producer) as headers:
                    producer.send(b"one", partition=partition, headers=headers)
        consumer = broker.consumer("t", "g")
        batches = [consumer.receive(wait=10), consumer.receive(wait=10)]
        with tracing.process(*batches):
            consumer.ack(batches)
    *sent, processed = spans.get_finished_spans()
    assert {link.context.span_id for link in processed.links} == {span.context.span_id for span in sent}
    assert processed.attributes is not None
    assert processed.attributes["messaging.batch.message_count"] == 2
    assert "messaging.destination.partition.id" not in processed.attributes


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("bad"), "ValueError"),
        (tb.StaleLeaseError("gone"), "lease.stale"),
        (subprocess.TimeoutExpired("x", 1), "subprocess.TimeoutExpired"),
    ],
)
def test_an_error_in_the_block_is_recorded_and_raised(
    broker: tb.Broker, spans: InMemorySpanExporter, error: Exception, kind: str
) -> None:
    with broker.producer("t") as producer:
        producer.send(b"one")
    with pytest.raises(type(error)), tracing.process(receive(broker)):
        raise error
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == kind
    assert span.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


async def test_tasks_that_send_at_a_time_have_spans_of_their_own(spans: InMemorySpanExporter) -> None:
    async with aio.connect("mem://") as broker:
        await broker.create_topic("t", partitions=1)
        both = asyncio.Barrier(2)

        async def work(producer: aio.Producer, value: bytes) -> None:
            with tracing.send(producer) as headers:
                await both.wait()
                await producer.send_many([value, value], headers=headers)
                assert tracing.headers() == headers

        async with broker.producer("t") as producer:
            await asyncio.gather(work(producer, b"a"), work(producer, b"b"))
        async with broker.consumer("t", "g") as consumer:
            batch = await consumer.receive(wait=10)
            with tracing.process(batch):
                await batch.ack()
    sent = dict(zip(batch.values, batch.headers, strict=True))
    assert sent[b"a"] != sent[b"b"]
    *_, processed = spans.get_finished_spans()
    assert len(processed.links) == 2
    assert processed.attributes is not None
    assert processed.attributes["messaging.consumer.group.name"] == "g"


def test_what_is_sent_without_asking_for_it_carries_nothing(broker: tb.Broker, spans: InMemorySpanExporter) -> None:
    with broker.producer("t") as producer, tracing.send(producer):
        producer.send(b"one")
        producer.send_many([b"two"])
    assert receive(broker).headers == [{}, {}]


def test_without_an_sdk_nothing_is_added_and_no_record_is_looked_at(broker: tb.Broker) -> None:
    with broker.producer("t") as producer, tracing.send(producer) as headers:
        assert headers == {}
        producer.send(b"one", headers=headers)
    batch = receive(broker)
    with tracing.process(batch) as span:
        assert not span.is_recording()
    assert "headers" not in vars(batch)
    assert batch.headers == [{}]


def test_a_context_from_elsewhere_passes_through_a_program_without_an_sdk(broker: tb.Broker) -> None:
    context = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    with (
        trace.use_span(trace.NonRecordingSpan(context)),
        broker.producer("t") as producer,
        tracing.send(producer) as headers,
    ):
        assert headers == {"traceparent": PARENT % (1, 2)}


def test_a_span_that_is_not_sampled_is_carried_and_looks_at_no_record(
    broker: tb.Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("telemetry_broker"))
    with broker.producer("t") as producer, tracing.send(producer) as headers:
        producer.send(b"one", headers=headers)
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[02]", headers["traceparent"])
    batch = receive(broker)
    with tracing.process(batch):
        pass
    assert "headers" not in vars(batch)


def test_the_trace_state_travels_along() -> None:
    context = trace.SpanContext(
        1, 2, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=trace.TraceState([("vendor", "opaque")])
    )
    headers = tracing.headers(trace.set_span_in_context(trace.NonRecordingSpan(context)))
    assert headers == {"traceparent": PARENT % (1, 2), "tracestate": b"vendor=opaque"}
    (link,) = tracing.links(records(headers))
    assert link.context == context


def test_a_record_handled_alone_can_go_on_with_the_trace_of_its_sender(spans: InMemorySpanExporter) -> None:
    context = tracing.context({"traceparent": PARENT % (1, 2), "unit": b"W"})
    with tracing._tracer.start_as_current_span("handle", context=context):
        pass
    (span,) = spans.get_finished_spans()
    assert span.parent is not None
    assert (span.context.trace_id, span.parent.span_id) == (1, 2)
    assert tracing.context({}) == tracing.context({"tracestate": b"a=1"}) == {}


def test_a_trace_state_that_nobody_can_read_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    states = [b"\xff", b"a=1\nERROR forged", b"nothing", b"a=1,a=2"]
    parents = [PARENT % (number, 2) for number in range(1, 5)]
    links = tracing.links(
        records(*({"traceparent": parent, "tracestate": state} for parent, state in zip(parents, states, strict=True)))
    )
    assert [(link.context.trace_id, dict(link.context.trace_state)) for link in links] == [
        (number, {}) for number in range(1, 5)
    ]
    assert not [record for record in caplog.records if "\n" in record.getMessage()]


def test_equal_contexts_are_one_link_and_128_are_the_most() -> None:
    parents = [PARENT % (number, 1) for number in range(1, 200) for _ in range(2)]
    assert contexts(*parents) == [(number, 1) for number in range(1, tracing.MAX_LINKS + 1)]


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"00",
        b"\xff\xfe",
        b"ff-" + (PARENT % (1, 2))[3:],
        b"0-" + (PARENT % (1, 2))[3:],
        PARENT % (0, 2),
        PARENT % (1, 0),
        (PARENT % (0xABC, 2)).upper(),
        (PARENT % (1, 2)).replace(b"-", b"_"),
        b"00-g" + (PARENT % (1, 2))[4:],
        PARENT % (1, 2) + b"0",
        PARENT % (1, 2) + b"-more",
        (PARENT % (1, 2))[:-1],
        b"01" + (PARENT % (1, 2))[2:] + b"-" + b"x" * 500,
    ],
)
def test_a_malformed_traceparent_is_passed_over(parent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert contexts(PARENT % (7, 8), parent, PARENT % (9, 8)) == [(7, 8), (9, 8)]
    assert caplog.records == []


def test_a_traceparent_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert contexts(b"cc" + (PARENT % (1, 2))[2:] + b"-what comes next", b"01" + (PARENT % (3, 4))[2:]) == [
        (1, 2),
        (3, 4),
    ]


_hex = st.text("0123456789abcdefABCDEF", max_size=40)


@given(st.binary(max_size=70) | st.tuples(_hex, _hex, _hex, _hex).map("-".join).map(str.encode), st.binary())
def test_no_header_breaks_a_consumer(parent: bytes, state: bytes) -> None:
    links = tracing.links(records({"traceparent": parent, "tracestate": state}, {"traceparent": PARENT % (7, 8)}))
    assert all(link.context.is_valid for link in links)
    assert (links[-1].context.trace_id, links[-1].context.span_id) == (7, 8)


@given(st.integers(0, 255), st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1), st.integers(0, 255))
def test_a_well_formed_traceparent_is_read_unless_the_rules_forbid_it(
    version: int, trace_id: int, span_id: int, flags: int
) -> None:
    read = contexts(b"%02x-%032x-%016x-%02x" % (version, trace_id, span_id, flags))
    assert read == ([(trace_id, span_id)] if version != 255 and trace_id and span_id else [])


def run(program: str) -> str:
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_library_does_not_import_opentelemetry_by_itself() -> None:
    run("import sys, telemetry_broker; assert 'opentelemetry' not in sys.modules")


def test_without_opentelemetry_everything_works_but_tracing_which_names_the_extra() -> None:
    output = run("""
import sys
sys.modules["opentelemetry"] = None
import telemetry_broker as tb
with tb.connect("mem://") as broker:
    broker.create_topic("t", partitions=1)
    with broker.producer("t") as producer:
        producer.send_many([b"one"], headers={"traceparent": b"00-0123"})
    print([headers for part in broker.read("t", 0) for headers in part.headers])
try:
    from telemetry_broker import tracing
except ImportError as error:
    print(error)
""")
    assert output.splitlines() == [
        "[{'traceparent': b'00-0123'}]",
        "telemetry_broker.tracing needs OpenTelemetry, which is not installed: "
        "pip install 'telemetry-broker[opentelemetry]'",
    ]
