"""`telemetry streamer`: streams one dump into a broker, and shows how far it is on its side port."""

import asyncio
import contextlib
import logging
import threading
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

import telemetry_broker as tb
from telemetry_broker.errors import BrokerError
from telemetry_services.config import StreamerSettings
from telemetry_services.errors import ConfigError
from telemetry_services.observability.metrics import BROKER_HEALTH
from telemetry_services.serving.http_server import Health, HttpServer, side_port_routes
from telemetry_services.serving.retries import retrying
from telemetry_services.serving.sockets import listen
from telemetry_services.streamer import CsvStreamer, Options, Progress
from telemetry_services.text import shown_url

log = logging.getLogger(__name__)


async def serve(settings: StreamerSettings, stopping: asyncio.Event) -> int:
    """Streams until the dump is in the topic, or until `stopping` is set; returns the exit status."""
    if settings.csv_path is None:
        raise ConfigError("CSV_PATH is not set: give the dump with --csv FILE or CSV_PATH", code="config.missing")
    listener = listen(settings.host, settings.port, variable="PORT", flag="--port")
    progress = Progress()

    def note(now: Progress) -> None:
        nonlocal progress
        progress = now

    health = Health("streamer", details=lambda: _describe(settings, progress))
    http = HttpServer(Starlette(routes=side_port_routes(health)), listener)
    await http.start()
    stop = threading.Event()
    log.info(
        "Starting streamer",
        extra={
            "http": http.address,
            "csv": str(settings.csv_path),
            "broker": shown_url(settings.broker),
            "topic": settings.msg_queue_topic,
            "producer": settings.msg_queue_producer_name,
        },
    )
    streaming = asyncio.create_task(asyncio.to_thread(_stream, settings, settings.csv_path, note, stop))
    ended = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((streaming, ended), return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        streamed = await streaming
    except BrokerError as error:
        if not stopping.is_set():
            raise
        log.warning("stopped before the dump was streamed: %s", error)
        return 0
    finally:
        stop.set()
        ended.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ended
        await http.stop()
    log.info(
        "Stopped streamer" if stopping.is_set() else "Streamed all of it",
        extra={
            "rows": streamed.rows,
            "samples": streamed.samples,
            "records": streamed.points,
            "resumed": streamed.resumed,
            "duplicates": streamed.duplicates,
            "missing": streamed.missing,
        },
    )
    if streamed.rejected:
        log.warning("%s", streamed.describe_rejects())
    return 0


def _stream(settings: StreamerSettings, path: Path, note: Any, stop: threading.Event) -> Progress:
    options = Options(
        path=path,
        topic=settings.msg_queue_topic,
        rejects_dir=settings.rejects_dir,
        partitions=settings.partitions_per_topic,
        rate=settings.csv_rate,
        delay=settings.csv_delay_ms / 1000,
        loop=settings.csv_loop,
        again=settings.csv_again,
    )
    healthy = BROKER_HEALTH.labels("streamer", shown_url(settings.broker))

    def note_answered(progress: Progress) -> None:
        healthy.set(1)
        note(progress)

    with tb.connect(settings.broker, **settings.broker_credentials) as broker:
        streamer = CsvStreamer(broker, options, note_answered)
        for attempt in retrying(stop, f"streaming to {settings.broker}"):
            with attempt:
                healthy.set(0)
                return streamer.run(stop)
    raise AssertionError("retrying returns or raises")


def _describe(settings: StreamerSettings, progress: Progress) -> dict[str, Any]:
    return {
        "csv": str(settings.csv_path),
        "topic": settings.msg_queue_topic,
        "producer": settings.msg_queue_producer_name,
        "rows": progress.rows,
        "samples": progress.samples,
        "duplicates": progress.duplicates,
        "missing": progress.missing,
        "rejected": dict(progress.rejected),
    }
