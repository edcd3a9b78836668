"""Traces that pass through the broker: W3C trace context in record headers, spans around sending and handling.

    from telemetry_broker import tracing

    with tracing.send(producer) as headers:      # a span "send telemetry"
        producer.send(b"...", headers=headers)

    for batch in consumer:
        with tracing.process(batch):             # a span "process telemetry", with links to those that sent
            handle(batch.values)
            batch.ack()

Needs the extra ``telemetry-broker[opentelemetry]``, which brings OpenTelemetry's API. Where spans go is for the program
to configure, with OpenTelemetry's SDK; until it does, nothing is recorded and nothing is added to a record. Nothing
else in the library imports OpenTelemetry. Both faces use the same functions: for asyncio too it is ``with``.

Names and attributes are those of OpenTelemetry's semantic conventions for messaging. The context travels as the
headers ``traceparent`` and ``tracestate``, whatever propagators the program has: records outlive configurations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from telemetry_broker import _core, aio
from telemetry_broker.batch import Batch, Records
from telemetry_broker.errors import BrokerError
from telemetry_broker.producer import Producer

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    from opentelemetry.util.types import AttributeValue
except ImportError as error:
    raise ImportError(
        "telemetry_broker.tracing needs OpenTelemetry, which is not installed: "
        "pip install 'telemetry-broker[opentelemetry]'",
        name=error.name,
    ) from error

__all__ = ["MAX_LINKS", "context", "headers", "links", "process", "send"]

MAX_LINKS: Final = 128
"""Links of one span at most, which is what OpenTelemetry's SDK keeps unless told otherwise."""

_LONGEST_TRACEPARENT: Final = 512  # one of version 00 has 55; above this, OpenTelemetry logs each one
_W3C: Final = TraceContextTextMapPropagator()
_tracer: Final = trace.get_tracer("telemetry_broker", _core.__version__)


@contextmanager
def send(producer: Producer | aio.Producer, count: int | None = None) -> Iterator[dict[str, bytes]]:
    """A span around sending, as a child of the current one; gives the headers that carry it in records.

    One span can be for many records: one for each costs more than the record. It ends with the block, when the records
    are in the producer's buffer; flush inside the block for one that ends when they are stored.

    Args:
        producer: whose topic the span names.
        count: how many records are sent, where it is a batch.
    """
    attributes: dict[str, AttributeValue] = {} if count is None else {"messaging.batch.message_count": count}
    with _span("send", producer.topic, trace.SpanKind.PRODUCER, attributes):
        yield headers()


@contextmanager
def process(batch: Batch | aio.Batch, *more: Batch | aio.Batch) -> Iterator[trace.Span]:
    """A span around handling a batch, as a child of the current one, with links to the contexts in its records.

    It ends with the block. What the block raises is recorded, with the error's ``code`` or class as ``error.type``.
    Records are looked at only if the span is recorded: one that is not costs a few microseconds.

    Args:
        batch: what is handled.
        more: other batches of the same group that are handled with it, such as those of one ``Consumer.ack``.
    """
    batches = (batch, *more)
    attributes: dict[str, AttributeValue] = {
        "messaging.consumer.group.name": batch.group,
        "messaging.batch.message_count": sum(map(len, batches)),
    }
    if len({each.partition for each in batches}) == 1:
        attributes["messaging.destination.partition.id"] = str(batch.partition)
    if not more:
        attributes["messaging.telemetry_broker.offset"] = batch.base_offset
        attributes["messaging.telemetry_broker.attempt"] = batch.attempt
    with _span("process", batch.topic, trace.SpanKind.CONSUMER, attributes) as span:
        if span.is_recording():
            for link in links(*batches):
                span.add_link(link.context)
        yield span


def headers(context: Context | None = None) -> dict[str, bytes]:
    """The headers that carry a context in a record, for programs that make their own spans.

    Args:
        context: which; None: the current one.

    Returns:
        ``traceparent``, and ``tracestate`` if the context has one; an empty dict where no span is in the context.
    """
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context)
    return {name: value.encode("ascii") for name, value in carrier.items()}


def context(headers: Mapping[str, bytes]) -> Context:
    """The context that a record's headers carry: the parent of a span for this record alone.

    Args:
        headers: of one record, an entry of ``Batch.headers``.

    Returns:
        An empty context where there is no ``traceparent``, or one that is malformed by the W3C's rules.
    """
    if not 0 < len(headers.get("traceparent", b"")) <= _LONGEST_TRACEPARENT:
        return Context()
    carrier = {name: headers[name].decode("latin-1") for name in _W3C.fields if name in headers}
    # OpenTelemetry logs what it cannot read of a tracestate: no control characters into that log.
    return _W3C.extract({name: value for name, value in carrier.items() if value.isprintable()}, Context())


def links(*records: Records) -> list[trace.Link]:
    """Links to the distinct contexts in records, for programs that make their own spans.

    Returns:
        In the order of the records, the first 128 (``MAX_LINKS``).
    """
    found: list[trace.Link] = []
    seen: set[bytes | None] = {None}
    for headers in (headers for each in records for headers in each.headers):
        parent = headers.get("traceparent")
        if parent in seen:
            continue
        seen.add(parent)
        sender = trace.get_current_span(context(headers)).get_span_context()
        if sender.is_valid:
            found.append(trace.Link(sender))
            if len(found) == MAX_LINKS:
                break
    return found


@contextmanager
def _span(
    operation: str, topic: str, kind: trace.SpanKind, attributes: dict[str, AttributeValue]
) -> Iterator[trace.Span]:
    attributes |= {
        "messaging.system": "telemetry_broker",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }
    with _tracer.start_as_current_span(f"{operation} {topic}", kind=kind, attributes=attributes) as span:
        try:
            yield span
        except Exception as error:
            span.set_attribute("error.type", error.code if isinstance(error, BrokerError) else _class_name(error))
            raise


def _class_name(error: Exception) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
