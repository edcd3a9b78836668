"""What a failed call says to programs: `google.rpc` details, which every gRPC language reads with its own library."""

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from telemetry_broker.errors import BrokerError
from telemetry_broker.status_details import DOMAIN


def details_of(error: BrokerError, status: grpc.StatusCode) -> status_pb2.Status:
    """The status of an error: ErrorInfo, RetryInfo if a retry may help, BadRequest if one field is wrong."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN)]
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(max(1_000_000, round(error.retry_after * 1e9)))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    return status_pb2.Status(code=status.value[0], message=error.message, details=map(_packed, details))


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
