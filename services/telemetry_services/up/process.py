"""`telemetry up` from start to end: what it opens, prints, waits for and closes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp

import telemetry_broker as tb
from telemetry_broker import _core
from telemetry_broker.errors import BrokerError
from telemetry_broker.v1 import collector_pb2_grpc
from telemetry_services.api.process import why_unreadable
from telemetry_services.api.publishing import Publisher
from telemetry_services.api.servicer import SERVICE as QUERY_SERVICE
from telemetry_services.api.serving import Api
from telemetry_services.broker.compat import CompatibilityEndpoints, CoreUpstream
from telemetry_services.broker.grpc_front import GrpcFront
from telemetry_services.broker.process import open_core
from telemetry_services.collector.process import prepare
from telemetry_services.collector.servicer import SERVICE as COLLECTOR_SERVICE
from telemetry_services.collector.servicer import CollectorServicer
from telemetry_services.config import UpSettings
from telemetry_services.errors import SourceError
from telemetry_services.security import Guard
from telemetry_services.serving.http_server import Health, HttpServer
from telemetry_services.serving.ports import free_grpc_port, listen_for
from telemetry_services.store import Store, open_store
from telemetry_services.store.upkeep import maintained
from telemetry_services.streamer import Progress
from telemetry_services.text import counted, shown_url
from telemetry_services.up.children import running_fleet
from telemetry_services.up.display import Display
from telemetry_services.up.pipeline import Pipeline, Stored, embedded, embedded_aio
from telemetry_services.up.queue import Queue

_DRAIN_SECONDS: Final = 1.0
_LIVE_SECONDS: Final = 1.0
_COUNT_SECONDS: Final = 5.0
"""Until the GPUs of the store are counted again, which reads what is new in it."""


async def serve(settings: UpSettings, stopping: asyncio.Event) -> int:
    """Runs until the dump is stored (`--once`) or until `stopping` is set; returns the exit status."""
    csv = _dump(settings)
    if csv is not None:
        await asyncio.to_thread(
            _core.CsvReader, csv, partitions=1
        )  # a file that is no dump is refused before anything is opened
    guard = Guard(settings)
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(listen_for(settings, "port")))
        grpc_port = free_grpc_port(settings)
        queue = await stack.enter_async_context(_open_queue(settings))
        core, broker = queue.core, queue.broker
        store = await asyncio.to_thread(open_store, settings.store_url, **settings.store_credentials)
        stack.callback(store.close)
        pipeline = Pipeline(broker, store, settings, csv)
        stack.enter_context(maintained(store, settings.retention))
        await asyncio.to_thread(prepare, pipeline.collector)
        await asyncio.to_thread(pipeline.prepare)
        grpc_server = GrpcFront(guard, core, settings.data_dir, [COLLECTOR_SERVICE, QUERY_SERVICE])
        health = Health(
            "up",
            details=lambda: {**queue.describe(), "services": ["broker", "streamer", "collector", "api"]},
            ready=lambda: queue.why_unready() or why_unreadable(store),
            more_metrics=queue.metrics(grpc_server).render,
        )
        publisher = Publisher(lambda: broker, store, settings.msg_queue_topic, settings.partitions_per_topic)
        upstream = None if core is None else CoreUpstream(core)
        if upstream is not None:
            stack.callback(upstream.close)
        api = Api(
            settings,
            guard,
            store,
            publisher,
            health,
            connect=queue.connect_aio,
            broker=lambda: broker,
            pause=pipeline.collector.pause,
        )
        stack.push_async_callback(api.stop)
        app: ASGIApp = api.app
        if upstream is not None:  # else they are the proxies'
            endpoints = CompatibilityEndpoints(upstream, guard, partitions=settings.partitions_per_topic)
            app = endpoints.in_front_of(app)
        http = HttpServer(app, listener, tls=guard.http_tls, max_connections=guard.max_connections)
        grpc_address = await stack.enter_async_context(
            _serving(settings, grpc_server, upstream, pipeline, api, http, health, grpc_port)
        )
        await stack.enter_async_context(guard.watching())
        display = stack.enter_context(Display())
        key = api.made_key
        shown_key, header = (key, key) if key is not None else (f"as in {_given_in(settings)}", "$API_KEY")
        if key is not None:
            display.say(f"page {http.url}/login?token={api.tokens.make(key)}  (works once, within 10 minutes)")
        else:
            display.say(f"page {http.url}/")
        display.say(f"API {http.url}  API key: {shown_key}")
        display.say(f'try: curl -H "X-API-Key: {header}" {http.url}/api/v1/gpus')
        for proxy in queue.proxies:
            display.say(f"proxy http://{proxy.http}  gRPC {proxy.grpc}")
        folder, of_whom = settings.data_dir.absolute(), "collector gRPC" if core is None else "gRPC"
        display.say(f"{of_whom} {grpc_address}  data {folder}  store {shown_url(settings.store_url)}")
        alone = f"file://{settings.data_dir.absolute()}" if settings.once else f"grpc://{grpc_address}"
        url = alone if core is not None else broker.url
        run = asyncio.create_task(_run(settings, pipeline, store, display, url))
        stopped = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait((run, stopped), return_when=asyncio.FIRST_COMPLETED)
            if run.done():
                return run.result()
            display.end()
            display.say("stopping: storing what is on its way")
            return 0
        finally:
            run.cancel()
            stopped.cancel()
            await asyncio.wait((run, stopped))
            await pipeline.end()
    raise AssertionError("the block returns")


def _given_in(settings: UpSettings) -> str:
    """The setting that the keys are in."""
    if settings.api_key_file is not None:
        return "API_KEY_FILE"
    return "API_KEY" if settings.api_key is not None else "API_KEYS_FILE"


def _dump(settings: UpSettings) -> Path | None:
    if settings.no_csv:
        return None
    if settings.csv_path is not None:
        return settings.csv_path
    return Path(str(resources.files("telemetry_services") / "data" / "dcgm-sample.csv"))


@contextlib.asynccontextmanager
async def _open_queue(settings: UpSettings) -> AsyncIterator[Queue]:
    """One broker in this process, or several in their own; both let go of at the end of the block."""
    if settings.up_brokers:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        async with running_fleet(settings) as fleet:
            with tb.connect(fleet.url, token=fleet.token) as broker:
                yield Queue(broker, None, fleet, lambda: tb.aio.connect(fleet.url, token=fleet.token))
        return
    core = await asyncio.to_thread(open_core, settings)
    try:
        with embedded(core, settings.data_dir) as broker:
            yield Queue(broker, core, None, lambda: embedded_aio(core, settings.data_dir))
    finally:
        await asyncio.to_thread(core.close)


@contextlib.asynccontextmanager
async def _serving(
    settings: UpSettings,
    server: GrpcFront,
    upstream: CoreUpstream | None,
    pipeline: Pipeline,
    api: Api,
    http: HttpServer,
    health: Health,
    grpc_port: int,
) -> AsyncIterator[str]:
    """Serves gRPC and HTTP inside the block; gives the gRPC address."""
    collector_pb2_grpc.add_CollectorServiceServicer_to_server(
        CollectorServicer(pipeline.collector, shown_url(settings.store_url)), server.server
    )
    api.serve_queries(server.server)
    address = server.listen(settings.host, grpc_port)
    if settings.listen:
        address = f"{address},{server.listen_unix(settings.listen)}"
    await server.start()
    api.start()
    await http.start()
    try:
        yield address
    finally:
        health.draining = True
        api.end_streams()
        if upstream is not None:
            upstream.stop()
        await asyncio.gather(server.stop(_DRAIN_SECONDS), http.stop())


async def _run(settings: UpSettings, pipeline: Pipeline, store: Store, display: Display, url: str) -> int:
    """Streams, waits until all is stored, says so, and goes on as a live fleet; ends with `--once` only."""
    began = time.monotonic()
    collecting = pipeline.collect()
    if settings.no_csv:
        await _watch(pipeline, store, display, collecting)
        return 0
    streamed = await _stream(pipeline, display, collecting)
    stored = asyncio.ensure_future(pipeline.all_stored())
    try:
        await _first_of(stored, collecting)
        display.end()
        held = await asyncio.to_thread(pipeline.count_stored, streamed, began)
    finally:
        stored.cancel()
    _say_stored(pipeline, display, streamed, held)
    if held.samples < held.expected:
        error = await asyncio.to_thread(_incomplete, pipeline, settings.msg_queue_topic, url, held)
        if settings.once:
            raise error
        display.say(error.message)
    if settings.once:
        return 0
    living = asyncio.ensure_future(pipeline.go_live())
    await _watch(pipeline, store, display, collecting, living)
    return 0


async def _stream(pipeline: Pipeline, display: Display, collecting: "asyncio.Future[None]") -> Progress:
    display.begin_streaming("streaming")
    streaming = pipeline.stream(lambda progress: display.streaming(progress, pipeline.collector.status.samples_stored))
    await _first_of(streaming, collecting)
    return await streaming


def _say_stored(pipeline: Pipeline, display: Display, streamed: Progress, stored: Stored) -> None:
    for told in (streamed.describe_rejects(), streamed.describe_left_out()):
        if told:
            display.say(told)
    rejected = pipeline.collector.status.records_rejected
    if rejected:
        display.say(f"{counted(rejected, 'record')} could not be stored: see the topic {pipeline.collector.topic}.dlq")
    if stored.samples > stored.expected:
        more = counted(stored.samples - stored.expected, "sample")
        display.say(f"the store holds {more} more within the times of this dump: of other dumps, or of --again")
    if not streamed.samples and not stored.added and stored.samples >= stored.expected:
        display.say("already stored")
    display.say(str(stored))


def _incomplete(pipeline: Pipeline, topic: str, url: str, stored: Stored) -> SourceError:
    """The error for a dump that is not all in the store; `url` is where its broker can be reached then."""
    lacking = stored.expected - stored.samples
    dead = pipeline.dead_letters()
    why = (
        f"{counted(dead, 'record')} that could not be stored {'is' if dead == 1 else 'are'} in the topic {topic}.dlq; "
        f"telemetry_broker.connect({url!r}).read({f'{topic}.dlq'!r}, 0) reads its partition 0"
        if dead
        else "the topic no longer has them, or another collector took them; stream the dump once more with --again"
    )
    return SourceError(
        f"{counted(lacking, 'sample')} of the dump's {stored.expected:,} {'is' if lacking == 1 else 'are'} not in the "
        f"store: {why}",
        code="source.incomplete",
    )


async def _watch(pipeline: Pipeline, store: Store, display: Display, *workers: "asyncio.Future[None]") -> None:
    """Shows the live line until a worker fails."""
    before, before_at = pipeline.collector.status.samples_stored, time.monotonic()
    fleet, count_at = "", before_at
    while True:
        done, _ = await asyncio.wait(workers, timeout=_LIVE_SECONDS)
        for worker in done:
            worker.result()
        if done:
            return
        now, now_at = pipeline.collector.status.samples_stored, time.monotonic()
        rate, before, before_at = (now - before) / (now_at - before_at), now, now_at
        if now_at >= count_at:
            fleet, count_at = await asyncio.to_thread(_fleet_of, store), now_at + _COUNT_SECONDS
        display.live(await asyncio.to_thread(_live_line, pipeline, fleet, rate))


def _fleet_of(store: Store) -> str:
    try:
        hosts = store.hosts()
    except BrokerError as error:
        return f"the store cannot be read: {error}"
    return f"{counted(sum(host.gpu_count for host in hosts), 'GPU')} on {counted(len(hosts), 'host')}"


def _live_line(pipeline: Pipeline, fleet: str, rate: float) -> str:
    status = pipeline.collector.status
    lag = pipeline.lag()
    trouble = f" · {status.last_error}" if status.last_error else ""
    return (
        f"live · {fleet} · {status.samples_stored:,} samples stored, {rate:,.0f}/s · "
        f"lag {'not known' if lag is None else f'{lag:,}'} · "
        f"dead letters {status.records_rejected:,}{trouble} · Ctrl-C ends"
    )


async def _first_of(work: "asyncio.Future[Any]", other: "asyncio.Future[None]") -> None:
    """Waits for the work; the other one must not end before it."""
    await asyncio.wait((work, other), return_when=asyncio.FIRST_COMPLETED)
    if other.done() and not work.done():
        other.result()
        raise SourceError("the collector ended before all was stored; see the log", code="service.failed")
    work.result()
