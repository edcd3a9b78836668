"""`telemetry collector status|flush|pause|resume`: looks at a collector that runs, or holds it, over gRPC.

Where it asks who comes: TELEMETRY_TOKEN or TELEMETRY_TOKEN_FILE; its authorities, over TLS: TELEMETRY_CA_FILE.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from telemetry_services.text import printable

if TYPE_CHECKING:
    from telemetry_broker.v1 import collector_pb2 as pb

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT_URL: Final = "grpc://127.0.0.1:9090"
_TOKEN: Final = "TELEMETRY_TOKEN"  # noqa: S105 (a name)
_TOKEN_FILE: Final = "TELEMETRY_TOKEN_FILE"  # noqa: S105
_CA_FILE: Final = "TELEMETRY_CA_FILE"
_ANSWER_SECONDS: Final = 10.0
_MORE_SECONDS: Final = 5.0
"""That an answer may take beyond what it was asked to wait."""


def _of_a_collector(function: F) -> F:
    """Adds the option that says which collector is meant."""
    return click.option(
        "--collector",
        "url",
        envvar="TELEMETRY_COLLECTOR",
        default=_DEFAULT_URL,
        show_default=True,
        metavar="URL",
        help="Its gRPC address; grpcs:// over TLS.  [TELEMETRY_COLLECTOR]",
    )(function)


@click.command(short_help="Show what it has stored, what it holds and how it is.")
@_of_a_collector
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of text.")
def status(url: str, as_json: bool) -> int:
    """Show a collector.

    Exit status: 0, or 1 where its store takes nothing at the moment.
    """
    from telemetry_broker.v1 import collector_pb2 as pb

    found = _call(url, "GetStatus", pb.GetStatusRequest(), _ANSWER_SECONDS)
    click.echo(json.dumps(_document(found)) if as_json else "\n".join(_lines(found)))
    return 1 if found.last_error else 0


@click.command(short_help="Store what it holds now, and wait for that.")
@_of_a_collector
@click.option("--timeout", type=click.IntRange(1, 60), default=10, show_default=True, metavar="SECONDS")
def flush(url: str, timeout: int) -> None:
    """Have a collector store and ack what it holds."""
    from telemetry_broker.v1 import collector_pb2 as pb

    answer = _call(url, "Flush", pb.FlushRequest(timeout_ms=timeout * 1000), timeout + _MORE_SECONDS)
    click.echo(f"stored {answer.records:,} {'record' if answer.records == 1 else 'records'}")


@click.command(short_help="Stop taking records; what it holds is stored first.")
@_of_a_collector
def pause(url: str) -> None:
    """Have a collector take no more records, until it is resumed or started again.

    Its partitions stay with it: records wait in the broker, and no other collector takes them.
    """
    _hold(url, paused=True)
    click.echo("paused")


@click.command(short_help="Go on after a pause.")
@_of_a_collector
def resume(url: str) -> None:
    """Have a collector take records again."""
    _hold(url, paused=False)
    click.echo("resumed")


SUBCOMMANDS: Final = (status, flush, pause, resume)


def _hold(url: str, *, paused: bool) -> None:
    from telemetry_broker.v1 import collector_pb2 as pb

    _call(url, "Pause", pb.PauseRequest(paused=paused), _ANSWER_SECONDS)


def _call(url: str, method: str, request: Any, timeout: float) -> Any:
    """Calls a collector; what goes wrong is told in a sentence."""
    import grpc

    from telemetry_broker.errors import InvalidArgumentError
    from telemetry_broker.v1.collector_pb2_grpc import CollectorServiceStub
    from telemetry_services.errors import ServiceError

    scheme, _, address = url.partition("://")
    if scheme not in ("grpc", "grpcs") or not address:
        raise InvalidArgumentError(f"collector {url!r}: expected grpc://HOST:PORT, or grpcs://HOST:PORT over TLS")
    token = _token()
    with _channel(scheme, address) as channel:
        try:
            return getattr(CollectorServiceStub(channel), method)(
                request, timeout=timeout, metadata=[("authorization", f"Bearer {token}")] if token else None
            )
        except grpc.RpcError as error:
            details = error.details()
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                details = f"it does not answer ({details}); see that it runs, and that this is its gRPC address"
            raise ServiceError(f"collector {url}: {details}") from error


def _channel(scheme: str, address: str) -> Any:
    import grpc

    if scheme == "grpc":
        return grpc.insecure_channel(address)
    ca_file = os.environ.get(_CA_FILE)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(Path(ca_file).read_bytes() if ca_file else None))


def _token() -> str:
    if token := os.environ.get(_TOKEN):
        return token
    path = os.environ.get(_TOKEN_FILE)
    words = Path(path).read_text(encoding="utf-8").replace(",", " ").split() if path else []
    return words[0] if words else ""


def _lines(found: "pb.GetStatusResponse") -> Iterator[str]:
    facts = {
        "topic": found.topic,
        "group": found.group,
        "store": found.store,
        "state": "paused" if found.paused else "the store takes nothing" if found.last_error else "collecting",
        "records stored": f"{found.records_stored:,}",
        "rows stored": f"{found.rows_stored:,}",
        "samples stored": f"{found.samples_stored:,}",
        "records rejected": f"{found.records_rejected:,}",
        "commits": f"{found.commits:,}",
    }
    if found.last_error:
        facts["last error"] = found.last_error
    for name, value in facts.items():
        yield f"{name:<16}  {printable(value)}"
    if found.partitions:
        yield f"\n{'PARTITION':>9}  {'STORED TO':>12}  {'PENDING':>9}"
    for held in found.partitions:
        yield f"{held.partition:>9}  {held.stored_end_offset:>12,}  {held.pending_records:>9,}"


def _document(found: "pb.GetStatusResponse") -> dict[str, Any]:
    names = ["topic", "group", "store", "paused", "records_stored", "rows_stored", "samples_stored"]
    names += ["records_rejected", "commits", "last_error"]
    partitions = [
        {
            "partition": held.partition,
            "log_id": held.log_id.hex(),
            "stored_end_offset": held.stored_end_offset,
            "pending_records": held.pending_records,
        }
        for held in found.partitions
    ]
    return {**{name: getattr(found, name) for name in names}, "partitions": partitions}
