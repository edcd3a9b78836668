"""`telemetry collector`: one collector, with CollectorService over gRPC and an HTTP side port."""

import asyncio
import contextlib
import logging
import threading
import uuid
from collections.abc import Callable

from starlette.applications import Starlette

import telemetry_broker as tb
from telemetry_broker.errors import BrokerError
from telemetry_broker.v1 import collector_pb2_grpc
from telemetry_services.broker.grpc_front import GrpcFront
from telemetry_services.collector import Bounds, Collector, Status
from telemetry_services.collector.dead_letters import DeadLetters
from telemetry_services.collector.servicer import SERVICE, CollectorServicer
from telemetry_services.config import CollectorSettings
from telemetry_services.config.models import CollectSettings
from telemetry_services.observability.metrics import BROKER_HEALTH
from telemetry_services.security import Guard
from telemetry_services.serving.http_server import Health, HttpServer, side_port_routes
from telemetry_services.serving.sockets import listen
from telemetry_services.store import ColumnStore, LineStore, StoreUnavailableError, open_store
from telemetry_services.store.upkeep import maintained
from telemetry_services.text import shown_url

log = logging.getLogger(__name__)
_DRAIN_SECONDS = 1.0


def make_collector(
    broker: tb.Broker,
    store: ColumnStore | LineStore,
    settings: CollectSettings,
    on_commit: Callable[[Status], None] = lambda _: None,
) -> Collector:
    """A collector as the settings say."""
    return Collector(
        broker,
        store,
        topic=settings.msg_queue_topic,
        group=settings.msg_queue_group,
        dead_letters=DeadLetters(settings.data_dir / "rejects"),
        # Unique, as an ordered group must be able to tell its consumers apart; the name given stays readable in it.
        name=f"{settings.msg_queue_consumer_name}-{uuid.uuid4().hex[:8]}",
        bounds=Bounds(settings.collect_max_rows, settings.collect_max_bytes, settings.collect_max_age),
        on_commit=on_commit,
    )


async def serve(settings: CollectorSettings, stopping: asyncio.Event) -> int:
    """Collects until `stopping` is set, then commits and acks what it holds; returns the exit status."""
    guard = Guard(settings)
    listener = listen(settings.host, settings.port, variable="PORT", flag="--port")
    store = await asyncio.to_thread(open_store, settings.store_url, **settings.store_credentials)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(store.close)
        broker = stack.enter_context(tb.connect(settings.broker, **settings.broker_credentials))
        collector = make_collector(broker, store, settings)
        stack.enter_context(maintained(store, settings.retention))
        await asyncio.to_thread(prepare, collector)
        grpc_server = GrpcFront(guard, None, None, [SERVICE])
        collector_pb2_grpc.add_CollectorServiceServicer_to_server(
            CollectorServicer(collector, shown_url(settings.store_url)), grpc_server.server
        )
        grpc_address = grpc_server.listen(settings.host, settings.grpc_port)
        health = Health("collector", ready=lambda: _why_unready(broker, collector))
        app = Starlette(routes=side_port_routes(health))
        http = HttpServer(app, listener, tls=guard.http_tls, max_connections=guard.max_connections)
        await grpc_server.start()
        await http.start()
        log.info(
            "Starting collector",
            extra={
                "grpc": grpc_address,
                "http": http.address,
                "broker": shown_url(settings.broker),
                "topic": settings.msg_queue_topic,
                "group": settings.msg_queue_group,
                "consumer": collector.name,
                "store": shown_url(settings.store_url),
                **guard.summary,
            },
        )
        stop = threading.Event()
        collecting = asyncio.create_task(asyncio.to_thread(collector.run, stop))
        ended = asyncio.create_task(stopping.wait())
        try:
            await stack.enter_async_context(guard.watching())
            await asyncio.wait((collecting, ended), return_when=asyncio.FIRST_COMPLETED)
            health.draining = True
            stop.set()
            await collecting
        except BrokerError as error:
            if not stopping.is_set():
                raise
            log.warning("stopped without storing the last records; they are not acked and come again: %s", error)
        finally:
            stop.set()
            ended.cancel()
            await grpc_server.stop(_DRAIN_SECONDS)
            await http.stop()
    log.info(
        "Stopped collector", extra={"records": collector.status.records_stored, "commits": collector.status.commits}
    )
    return 0


def prepare(collector: Collector) -> None:
    """Lets a store that cannot be written say so now; one that is away is waited for, as when it goes later."""
    try:
        collector.prepare()
    except StoreUnavailableError as error:
        log.warning("starting without the store, and waiting for it: %s", error)


def _why_unready(broker: tb.Broker, collector: Collector) -> str:
    healthy = BROKER_HEALTH.labels("collector", shown_url(broker.url))
    try:
        broker.describe()
    except BrokerError as error:
        healthy.set(0)
        return f"the broker does not answer: {error}"
    healthy.set(1)
    return f"the store takes nothing: {collector.status.last_error}" if collector.status.last_error else ""
