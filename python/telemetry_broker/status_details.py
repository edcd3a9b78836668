"""The ``google.rpc`` details of a failed call, read without the package that has their generated code.

That package belongs to the servers. Here a few small messages are enough, in a pool of their own, so that they never
meet the real ones in a program that has both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

DETAILS_KEY: Final = "grpc-status-details-bin"
"""The entry of the trailing metadata that holds an encoded ``google.rpc.Status``."""

DOMAIN: Final = "telemetry-broker"
"""Whose codes the reasons are."""

_MESSAGES: Final = """
name: "status_details.proto" package: "google.rpc" syntax: "proto3"
message_type { name: "Status"
  field { name: "details" number: 3 type: TYPE_MESSAGE type_name: ".google.rpc.Any" label: LABEL_REPEATED } }
message_type { name: "Any"
  field { name: "type_url" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "value" number: 2 type: TYPE_BYTES label: LABEL_OPTIONAL } }
message_type { name: "ErrorInfo"
  field { name: "reason" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "domain" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "RetryInfo"
  field { name: "retry_delay" number: 1 type: TYPE_MESSAGE type_name: ".google.rpc.Duration" label: LABEL_OPTIONAL } }
message_type { name: "Duration"
  field { name: "seconds" number: 1 type: TYPE_INT64 label: LABEL_OPTIONAL }
  field { name: "nanos" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL } }
message_type { name: "BadRequest"
  field { name: "field_violations" number: 1 type: TYPE_MESSAGE type_name: ".google.rpc.FieldViolation"
          label: LABEL_REPEATED } }
message_type { name: "FieldViolation"
  field { name: "field" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
"""
_POOL: Final = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_MESSAGES, descriptor_pb2.FileDescriptorProto()))


def _message_class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"google.rpc.{name}"))


_Status: Final = _message_class("Status")
_ErrorInfo: Final = _message_class("ErrorInfo")
_RetryInfo: Final = _message_class("RetryInfo")
_BadRequest: Final = _message_class("BadRequest")


class Details(NamedTuple):
    """What an error of a broker says beside its status and its text."""

    code: str
    retry_after: float | None
    field: str | None


def read_details(trailers: Iterable[tuple[str, str | bytes]]) -> Details | None:
    """The details that a broker sent; None when there are none, or they are of something else on the way."""
    value = next((value for key, value in trailers if key == DETAILS_KEY), None)
    if not isinstance(value, bytes):
        return None
    code, retry_after, field = None, None, None
    try:
        for detail in _Status.FromString(value).details:
            match detail.type_url.rpartition("/")[2]:
                case "google.rpc.ErrorInfo":
                    info = _ErrorInfo.FromString(detail.value)
                    code = info.reason if info.domain == DOMAIN else None
                case "google.rpc.RetryInfo":
                    delay = _RetryInfo.FromString(detail.value).retry_delay
                    retry_after = delay.seconds + delay.nanos / 1e9
                case "google.rpc.BadRequest":
                    violations = _BadRequest.FromString(detail.value).field_violations
                    field = violations[0].field if violations else None
    except DecodeError:
        return None
    return Details(code, retry_after, field) if code else None
