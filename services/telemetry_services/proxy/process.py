"""`telemetry proxy`: knows its brokers, serves them as one, and at the end drains."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from telemetry_broker import _core
from telemetry_broker.aio.remote import RemoteTransport
from telemetry_broker.errors import BrokerError, InvalidArgumentError
from telemetry_services.broker.compat import ChannelUpstream, CompatibilityEndpoints
from telemetry_services.broker.compat.errors import answer_error
from telemetry_services.broker.grpc_front import GrpcFront
from telemetry_services.broker.metering import FrontMetrics
from telemetry_services.config import ProxySettings
from telemetry_services.errors import ConfigError
from telemetry_services.proxy.brokers import Brokers
from telemetry_services.proxy.membership import Members, listed_brokers, warn_of_unknown_names
from telemetry_services.proxy.traffic import SERVICE, Traffic
from telemetry_services.security import Guard
from telemetry_services.security.files import Watched, read_bounded
from telemetry_services.serving.http_server import Health, HttpServer, side_port_routes
from telemetry_services.serving.sockets import listen

log = logging.getLogger(__name__)
DRAIN_SECONDS: Final = 4.0
_MOST_SHOWN: Final = 5
_MAX_PEM_BYTES: Final = 1 << 20


async def serve(settings: ProxySettings, stopping: asyncio.Event) -> int:
    """Serves until `stopping` is set, then drains; returns the exit status."""
    guard = Guard(settings)
    listener = listen(settings.host, settings.port, variable="PORT", flag="--port")
    members = listed_brokers(settings)
    async with contextlib.AsyncExitStack() as stack:
        cluster = _open_cluster(settings, members)
        stack.callback(cluster.close)
        are_pods = not (settings.brokers or settings.brokers_file)
        brokers, traffic = Brokers(cluster, are_pods=are_pods), Traffic()
        transport = RemoteTransport("the brokers of this proxy", _core.Channel.of_cluster(cluster))
        stack.push_async_callback(transport.close)
        upstream = ChannelUpstream(transport)
        grpc_server = GrpcFront(guard, cluster, None)
        front_metrics = FrontMetrics(grpc_server, SERVICE)

        def more_metrics() -> bytes:
            brokers.update_metrics()
            return front_metrics.render()

        health = Health(SERVICE, details=brokers.health, ready=brokers.why_unready, more_metrics=more_metrics)
        routes = [*side_port_routes(health), *_routes(settings, guard, brokers, traffic)]
        endpoints = CompatibilityEndpoints(upstream, guard, partitions=settings.partitions_per_topic, service=SERVICE)
        app = endpoints.in_front_of(Starlette(routes=routes, exception_handlers={BrokerError: answer_error}))
        http = HttpServer(traffic.counting(app), listener, tls=guard.http_tls, max_connections=guard.max_connections)
        grpc_address = grpc_server.listen(settings.host, settings.grpc_port)
        await grpc_server.start()
        await http.start()
        log.info(
            "Starting proxy",
            extra={
                "grpc": grpc_address,
                "http": http.address,
                "brokers": len(members),
                "first": ",".join(name for name, _ in members[:_MOST_SHOWN]),
                "virtual_nodes": settings.virtual_nodes,
                **guard.summary,
            },
        )
        _warn_of_count(settings, members)
        tasks = {asyncio.create_task(brokers.report())}
        _look_up(members, tasks)
        _keep_up(settings, guard, cluster, tasks)
        async with guard.watching():
            await stopping.wait()
        log.info("Stopping proxy", extra={"drain_seconds": DRAIN_SECONDS})
        health.draining = True
        upstream.stop()
        await asyncio.gather(grpc_server.stop(DRAIN_SECONDS), http.stop())
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    log.info("Stopped proxy")
    return 0


def _open_cluster(settings: ProxySettings, members: Members) -> _core.Cluster:
    """Raises ConfigError for a token or certificate that cannot be used."""
    given: dict[str, Any] = {}
    if settings.service_token_file is not None:
        given["token_file"] = str(settings.service_token_file)
    elif settings.service_tokens:
        given["token"] = settings.service_tokens[0]
    if settings.broker_tls:
        given["tls"] = True
        if settings.tls_ca_file is not None:
            given["ca"] = read_bounded(settings.tls_ca_file, _MAX_PEM_BYTES, "TLS_CA_FILE")
        if settings.tls_cert_file is not None and settings.tls_key_file is not None:
            given["identity"] = (
                read_bounded(settings.tls_cert_file, _MAX_PEM_BYTES, "TLS_CERT_FILE"),
                read_bounded(settings.tls_key_file, _MAX_PEM_BYTES, "TLS_KEY_FILE"),
            )
    with _refusing():
        return _core.Cluster(members, virtual_nodes=settings.virtual_nodes, **given)


def _keep_up(settings: ProxySettings, guard: Guard, cluster: _core.Cluster, tasks: "set[asyncio.Task[None]]") -> None:
    """Has the brokers taken up anew whenever BROKERS_FILE changes."""
    path = settings.brokers_file
    if path is None:
        return
    current = [member.name for member in cluster.members()]

    def load() -> None:
        nonlocal current
        members = listed_brokers(settings)
        with _refusing():
            cluster.set_members(members)
        names = [name for name, _ in members]
        if names != current:
            come, gone = sorted(set(names) - set(current)), sorted(set(current) - set(names))
            log.info(
                "The brokers changed", extra={"brokers": len(names), "new": ",".join(come), "gone": ",".join(gone)}
            )
            _look_up(members, tasks)
        current = names

    guard.watch(Watched("brokers", [path], load))


def _look_up(members: Members, tasks: "set[asyncio.Task[None]]") -> None:
    """Has those said whose names are not known, without waiting for that."""
    looking = asyncio.create_task(warn_of_unknown_names(members))
    tasks.add(looking)
    looking.add_done_callback(tasks.discard)


@contextlib.contextmanager
def _refusing() -> Any:
    try:
        yield
    except InvalidArgumentError as err:
        raise ConfigError(err.message) from err


def _warn_of_count(settings: ProxySettings, members: Members) -> None:
    is_listed = settings.brokers or settings.brokers_file
    if is_listed and "broker_count" in settings.model_fields_set and settings.broker_count != len(members):
        log.warning(
            "BROKER_COUNT is not the number of brokers that are listed, which counts: correct it, or leave it out",
            extra={"broker_count": settings.broker_count, "brokers": len(members)},
        )


def _routes(settings: ProxySettings, guard: Guard, brokers: Brokers, traffic: Traffic) -> list[Route]:
    """`/status` and `/stats`, for who may describe the broker over gRPC."""

    def answering(body: Callable[[], dict[str, Any]]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            caller = guard.admit(request, "DescribeBroker")  # noqa: F841 (a call of its client until the end)
            return JSONResponse({**body(), "timestamp": int(time.time())})

        return answer

    def status() -> dict[str, Any]:
        config = {
            "broker_service": settings.broker_service,
            "broker_count": len(brokers.addresses),
            "broker_endpoints": brokers.addresses,
            "virtual_nodes": settings.virtual_nodes,
            "partitions_per_topic": settings.partitions_per_topic,
        }
        return {"proxy_config": config, **brokers.status()}

    return [
        Route("/status", answering(status)),
        Route("/stats", answering(lambda: {**traffic.describe(), **brokers.stats()})),
    ]
