"""Looking into encoded messages, against protobuf itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry_broker.errors import InvalidArgumentError
from telemetry_broker.stream_messages import encode_varint, wrap
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.broker.wire import first_field

records = st.builds(pb.Record, value=st.binary(max_size=300), timestamp_ns=st.integers(0, 1 << 62))
requests = st.builds(
    pb.ProduceRequest,
    topic=st.text(max_size=300),
    partition=st.none() | st.integers(0, (1 << 32) - 1),
    producer=st.text(max_size=20),
    sequence=st.integers(0, (1 << 64) - 1),
    records=st.lists(
        st.builds(pb.Record, value=st.binary(max_size=300), timestamp_ns=st.integers(0, 1 << 62)), max_size=3
    ),
)


@given(requests)
def test_a_field_is_found_where_protobuf_finds_it(request: pb.ProduceRequest) -> None:
    encoded = request.SerializeToString()
    assert bytes(first_field(encoded, 1)).decode() == request.topic
    assert bytes(first_field(encoded, 3)).decode() == request.producer
    assert bytes(first_field(pb.ProduceStreamRequest(produce=request).SerializeToString(), 1)) == encoded


@given(requests)
def test_a_wrapped_message_is_the_field_that_protobuf_writes(request: pb.ProduceRequest) -> None:
    assert wrap(1, request.SerializeToString()) == pb.ProduceStreamRequest(produce=request).SerializeToString()


@given(requests, st.data())
def test_a_message_that_breaks_off_is_refused_or_has_what_it_has(
    request: pb.ProduceRequest, data: st.DataObject
) -> None:
    encoded = request.SerializeToString()
    cut = encoded[: data.draw(st.integers(0, len(encoded)))]
    try:
        assert bytes(first_field(cut, 1)).decode() in ("", request.topic)
    except InvalidArgumentError:
        assert len(cut) < len(encoded)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_field_or_an_error(garbage: bytes) -> None:
    try:
        first_field(garbage, 1)
    except InvalidArgumentError:
        return


@pytest.mark.parametrize("value", [0, 127, 128, 300, (1 << 64) - 1])
def test_a_number_is_written_as_protobuf_does(value: int) -> None:
    assert pb.ProduceRequest.FromString(b"\x20" + encode_varint(value)).sequence == value
