"""`telemetry api`: the REST API as a process of its own."""

import asyncio
import logging
import sys
from typing import Final

import click

import telemetry_broker as tb
from telemetry_services.api.publishing import Publisher
from telemetry_services.api.servicer import SERVICE as QUERY_SERVICE
from telemetry_services.api.serving import Api
from telemetry_services.broker.grpc_front import GrpcFront
from telemetry_services.config import ApiSettings
from telemetry_services.observability.metrics import BROKER_HEALTH
from telemetry_services.security import Guard
from telemetry_services.serving.http_server import Health, HttpServer
from telemetry_services.serving.ports import free_grpc_port
from telemetry_services.serving.sockets import listen
from telemetry_services.store import Store, StoreError, open_store
from telemetry_services.text import shown_url

log = logging.getLogger(__name__)

_DRAIN_SECONDS: Final = 1.0


def why_unreadable(store: Store) -> str:
    """Why the store cannot be read; empty when it can."""
    try:
        store.metrics()
    except StoreError as error:
        return f"the store cannot be read: {error}"
    return ""


def _why_unready(store: Store, publisher: Publisher, broker: str) -> str:
    refusal = publisher.why_unready()
    BROKER_HEALTH.labels("api", shown_url(broker)).set(0 if refusal else 1)
    return why_unreadable(store) or refusal


async def serve(settings: ApiSettings, stopping: asyncio.Event) -> int:
    """Serves until `stopping` is set; returns the exit status."""
    guard = Guard(settings)
    listener = listen(settings.host, settings.port, variable="PORT", flag="--port")
    store = await asyncio.to_thread(open_store, settings.store_url, **settings.store_credentials)
    publisher = Publisher(
        lambda: tb.connect(settings.broker, **settings.broker_credentials),
        store,
        settings.msg_queue_topic,
        settings.partitions_per_topic,
    )
    health = Health("api", ready=lambda: _why_unready(store, publisher, settings.broker))
    api = Api(
        settings,
        guard,
        store,
        publisher,
        health,
        connect=lambda: tb.aio.connect(settings.broker, **settings.broker_credentials),
        broker=publisher.broker,
    )
    http = HttpServer(
        api.app,
        listener,
        tls=guard.http_tls,
        max_connections=guard.max_connections,
    )
    grpc_server = GrpcFront(guard, None, None, [QUERY_SERVICE])
    api.serve_queries(grpc_server.server)
    grpc_address = grpc_server.listen(settings.host, free_grpc_port(settings))
    api.start()
    await grpc_server.start()
    await http.start()
    store_url, broker_url = shown_url(settings.store_url), shown_url(settings.broker)
    log.info(
        "Starting api", extra={"http": http.address, "grpc": grpc_address, "store": store_url, "broker": broker_url}
    )
    if api.made_key is not None:
        # Who looks at the terminal may see the key; a log is kept, sent on and read by others.
        log.info("the API key was made for you, read it from the file", extra={"file": str(settings.api_key_path)})
        if sys.stdout.isatty():
            click.echo(f"API key: {api.made_key}")
    try:
        async with guard.watching():
            await stopping.wait()
        health.draining = True
    finally:
        api.end_streams()
        await asyncio.gather(grpc_server.stop(_DRAIN_SECONDS), http.stop())
        await api.stop()
        await asyncio.to_thread(publisher.close)
        await asyncio.to_thread(store.close)
    log.info("Stopped api")
    return 0
