"""`telemetry broker`: opens the folder, serves it, and at the end drains and closes it."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from starlette.applications import Starlette

from telemetry_broker import _core, calls, steps
from telemetry_broker.errors import BrokerError
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.broker.compat import CompatibilityEndpoints, CoreUpstream
from telemetry_services.broker.grpc_front import GrpcFront
from telemetry_services.broker.metering import BrokerMetrics
from telemetry_services.config import BrokerSettings, CoreSettings
from telemetry_services.config.loading import is_loopback
from telemetry_services.observability.metrics import BROKER_HEALTH
from telemetry_services.security import Guard
from telemetry_services.serving.http_server import Health, HttpServer, side_port_routes
from telemetry_services.serving.sockets import listen

log = logging.getLogger(__name__)
DRAIN_SECONDS: Final = 4.0


def open_core(settings: CoreSettings, name: str = "", members: Sequence[tuple[str, str]] = ()) -> _core.Broker:
    """Opens the data folder as the settings say, and makes the topics of TOPICS that are not there.

    Args:
        name: what the broker is called among others; empty: it is alone.
        members: names and addresses of them all, for clients that ask for them.

    Raises:
        BrokerError: the folder is in use, of a newer format or unreadable, or a topic exists otherwise.
    """
    core = _core.Broker(
        str(settings.data_dir.absolute()),
        queue_size=settings.queue_size,
        visibility_timeout_ms=round(settings.visibility_timeout * 1000),
        partitions=settings.partitions_per_topic,
        durability=settings.durability,
        name=name,
        members=members,
    )
    try:
        there = {topic.name for topic in steps.run(calls.topics(), core.call)}
        for name, partitions in settings.topics.items():
            if name not in there:
                request = pb.CreateTopicRequest(name=name, config=pb.TopicConfig(partitions=partitions))
                core.call("CreateTopic", request.SerializeToString())
    except BrokerError:
        core.close()
        raise
    return core


def describe_broker(core: _core.Broker, index: int = 0, count: int = 1) -> dict[str, Any]:
    """The broker's fields of `/health`."""
    return {
        "broker_index": index,
        "broker_count": max(count, index + 1),
        "owned_partitions": core.partition_numbers(),
        "timestamp": int(time.time()),
    }


def why_unready(core: _core.Broker, index: int = 0) -> str:
    """Why the broker cannot take records now; empty when it can."""
    reason = _why_refusing(core)
    BROKER_HEALTH.labels("broker", str(index)).set(0 if reason else 1)
    return reason


def _why_refusing(core: _core.Broker) -> str:
    try:
        answer = pb.DescribeBrokerResponse.FromString(core.call("DescribeBroker", b""))
    except BrokerError as error:
        return str(error)
    if answer.draining:
        return "the broker is draining"
    if answer.free_bytes < answer.min_free_bytes and answer.data_dir:
        return f"only {answer.free_bytes:,} bytes are free where the data is, {answer.min_free_bytes:,} are kept free"
    return ""


async def serve(settings: BrokerSettings, stopping: asyncio.Event) -> int:
    """Serves until `stopping` is set, then drains; returns the exit status.

    With a Unix socket, ports are opened only if they were given.
    """
    guard = Guard(settings)
    given = settings.model_fields_set if settings.listen else {"port", "grpc_port"}
    listener = listen(settings.host, settings.port, variable="PORT", flag="--port") if "port" in given else None
    # Where only this machine comes in, or at a port that nobody knows, nobody comes by the names of pods.
    are_pods = settings.broker_count > 1 and settings.grpc_port and not is_loopback(settings.host)
    members = settings.pods(settings.grpc_port) if are_pods else ()
    core = await asyncio.to_thread(open_core, settings, settings.broker_name, members)
    upstream = CoreUpstream(core)
    try:
        grpc_server = GrpcFront(guard, core, settings.data_dir)
        addresses = [grpc_server.listen_unix(settings.listen)] if settings.listen else []
        if "grpc_port" in given:
            addresses.append(grpc_server.listen(settings.host, settings.grpc_port))
        health = Health(
            "broker",
            details=lambda: describe_broker(core, settings.index, settings.broker_count),
            ready=lambda: why_unready(core, settings.index),
            more_metrics=BrokerMetrics(core, grpc_server).render,
        )
        endpoints = CompatibilityEndpoints(upstream, guard, partitions=settings.partitions_per_topic)
        app = endpoints.in_front_of(Starlette(routes=side_port_routes(health)))
        http = (
            HttpServer(app, listener, tls=guard.http_tls, max_connections=guard.max_connections) if listener else None
        )
        await grpc_server.start()
        if http:
            await http.start()
        log.info(
            "Starting broker",
            extra={
                "grpc": ",".join(addresses),
                "http": http.address if http else "-",
                "data": str(settings.data_dir.absolute()),
                "durability": settings.durability,
                "broker": settings.broker_name,
                "broker_index": settings.index,
                "broker_count": settings.broker_count,
                **guard.summary,
            },
        )
        async with guard.watching():
            await stopping.wait()
        log.info("Stopping broker", extra={"broker": settings.broker_name, "drain_seconds": DRAIN_SECONDS})
        health.draining = True
        upstream.stop()
        await grpc_server.stop(DRAIN_SECONDS)
        if http:
            await http.stop()
    finally:
        upstream.close()
        await asyncio.to_thread(core.close)
    log.info("Stopped broker", extra={"broker": settings.broker_name})
    return 0
