"""``simulate``: what a fleet of GPUs would send, into a topic or a CSV file."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Final

from telemetry_broker import _core
from telemetry_broker.cli import values
from telemetry_broker.cli.connecting import add_broker_options
from telemetry_broker.cli.output import duration, line, note, plural, rfc3339
from telemetry_broker.cli.parser import Command, Parser, describe
from telemetry_broker.cli.simulating import STDOUT, Pace, Sink, opened_sink
from telemetry_broker.errors import InvalidArgumentError

_TOPIC: Final = "telemetry"
_PARTITIONS: Final = 4
_SECOND_NS: Final = 1_000_000_000
_MOST_POINTS: Final = 4_096
"""Of a block: some 5 MB of records."""

_BLOCKS_PER_SECOND: Final = 10
_SUMMARY: Final = "make up a fleet of GPUs, and send what dcgm-exporter would say of it"
_TEXT: Final = f"""Each interval, each GPU is a record: a line of line protocol with a float field a metric, and the
GPU's uuid as the key. Jobs come and go on the hosts, more of them by day than at night; power and temperature
follow the work, and counters rise. The same --seed, --start and sizes give the same records.

It goes on in real time until Ctrl-C, unless --duration says otherwise. A topic that is not there is made. With
--csv the same goes to a file, as a dump of dcgm-exporter that `telemetry streamer` takes.

The {len(_core.FLEET_METRICS)} metrics, of which --metrics takes the first ones:
""" + "\n".join(
    "  " + " ".join(_core.FLEET_METRICS[first : first + 3]) for first in range(0, len(_core.FLEET_METRICS), 3)
)


def _add(parser: Parser) -> None:
    describe(
        parser,
        _SUMMARY,
        _run,
        text=_TEXT,
        examples=(
            "%(prog)s --hosts 31 --broker grpc://127.0.0.1:9090",
            "%(prog)s --hosts 125 --speed 0 --duration 1d --broker file:///var/lib/telemetry",
            "%(prog)s --csv dump.csv --speed 0 --duration 1h --start 2025-07-18T00:00:00Z",
        ),
    )
    fleet = parser.add_argument_group("fleet")
    fleet.add_argument("--hosts", type=values.number, default=4, metavar="N", help="1 to 65,536; default %(default)s")
    fleet.add_argument("--gpus", type=values.number, default=8, metavar="N", help="of a host, 1 to 16; default 8")
    fleet.add_argument(
        "--metrics",
        type=values.number,
        default=len(_core.FLEET_METRICS),
        metavar="N",
        help="of a GPU, the first ones of the list above; default %(default)s",
    )
    fleet.add_argument("--seed", type=values.offset, default=0, metavar="N", help="which fleet; default %(default)s")
    times = parser.add_argument_group("time")
    times.add_argument(
        "--interval", type=values.duration, default=10.0, metavar="DURATION", help="between two scrapes; default 10s"
    )
    times.add_argument(
        "--start",
        type=values.moment,
        metavar="TIME",
        help="of the first scrape, as 2025-07-18T20:42:34Z or how long ago; default: now, or at another --speed so "
        "long ago that it ends now",
    )
    times.add_argument(
        "--duration", type=values.duration, metavar="DURATION", help="from the first scrape on; default: until Ctrl-C"
    )
    times.add_argument(
        "--speed",
        type=values.factor,
        default=1.0,
        metavar="N",
        help="times as fast as real time; 0: as fast as it goes; default 1",
    )
    times.add_argument("--rate", type=values.count, metavar="N", help="records a second at most")
    parser.add_argument("--topic", default=_TOPIC, help="where they go; default %(default)s")
    parser.add_argument(
        "--partitions",
        type=values.number,
        default=_PARTITIONS,
        metavar="N",
        help="of the topic, if it has to be made; default %(default)s",
    )
    parser.add_argument("--csv", metavar="FILE", help="write a new file instead; -: standard output")
    parser.add_argument("--json", action="store_true", help="tell the counts as one JSON object")
    add_broker_options(parser)


COMMAND: Final = Command("simulate", _SUMMARY, _add)


def _run(parsed: argparse.Namespace) -> int:
    told = _Told(parsed)
    with _stopped_by_signals() as stop:
        fleet = _fleet(parsed)
        with opened_sink(parsed) as sink:
            if parsed.duration is None:
                note(f"simulating {told.fleet}, {sink.place}; Ctrl-C ends it")
            try:
                _send(parsed, fleet, sink, told, stop)
            finally:
                told.tell()
        if stop.is_set():
            raise KeyboardInterrupt
    return 0


def _fleet(parsed: argparse.Namespace) -> _core.SimulatedFleet:
    """The fleet, at its first scrape."""
    interval_ns, duration_ns = values.nanoseconds(parsed.interval), values.nanoseconds(parsed.duration or 0)
    if parsed.csv is not None and parsed.broker is not None:
        raise InvalidArgumentError("--csv writes a file and --broker names a broker: give one of them")
    if parsed.duration is None and not parsed.speed:
        raise InvalidArgumentError("--speed 0 does not end by itself: add --duration, such as --duration 1h")
    if parsed.duration is not None and not duration_ns:
        raise InvalidArgumentError("--duration is 0: give a time, such as 1h")
    start_ns: int = parsed.start
    if start_ns is None:
        ends_now = parsed.speed != 1
        now_ns = time.time_ns() // _SECOND_NS * _SECOND_NS
        start_ns = now_ns - (duration_ns if ends_now else 0)
    return _core.SimulatedFleet(
        hosts=parsed.hosts,
        gpus=parsed.gpus,
        metrics=parsed.metrics,
        start_ns=start_ns,
        interval_ns=interval_ns,
        scrapes=math.ceil(duration_ns / interval_ns) if duration_ns and interval_ns else None,
        seed=parsed.seed,
    )


def _send(
    parsed: argparse.Namespace, fleet: _core.SimulatedFleet, sink: Sink, told: _Told, stop: threading.Event
) -> None:
    """Makes and stores blocks, each at its time, until the fleet's is over or ``stop`` is set."""
    most = _MOST_POINTS if parsed.rate is None else min(_MOST_POINTS, max(1, parsed.rate // _BLOCKS_PER_SECOND))
    pace = Pace(fleet.time_ns, parsed.speed, parsed.rate)
    with ThreadPoolExecutor(1, "simulate") as maker:
        # The next block is made while this one is on its way.
        coming = maker.submit(sink.make, fleet, most)
        while (block := coming.result()) is not None:
            coming = maker.submit(sink.make, fleet, most)
            pace.wait(block, stop)
            if stop.is_set():
                return
            sink.put(block)
            told.add(block, pace.behind)


class _Told:
    """What was stored, and telling it at the end."""

    def __init__(self, parsed: argparse.Namespace) -> None:
        self._parsed = parsed
        self._records = 0
        self._samples = 0
        self._bytes = 0
        self._times: tuple[int, int] | None = None
        self._behind = 0.0
        self._began = time.monotonic()

    @property
    def fleet(self) -> str:
        """The fleet, for people."""
        parsed = self._parsed
        gpus, hosts = plural(parsed.hosts * parsed.gpus, "GPU"), plural(parsed.hosts, "host")
        return f"{gpus} on {hosts}, {plural(parsed.metrics, 'metric')} each {duration(parsed.interval)}"

    def add(self, block: _core.FleetBlock, behind: float) -> None:
        """Counts a block that is stored."""
        self._records += block.points
        self._samples += block.samples
        self._bytes += sum(map(len, block.data))
        self._times = (self._times[0] if self._times else block.time_ns, block.time_ns)
        self._behind = behind

    def tell(self) -> None:
        """Prints the summary, beside rows on standard output where those are there."""
        parsed = self._parsed
        seconds = max(time.monotonic() - self._began, 1e-6)
        say = note if parsed.csv == STDOUT else line
        is_late = bool(parsed.speed) and self._behind > max(1.0, parsed.interval / parsed.speed)
        if parsed.json:
            first, last = map(rfc3339, self._times) if self._times else (None, None)
            say(
                json.dumps(
                    {
                        "topic": parsed.topic if parsed.csv is None else None,
                        "csv": parsed.csv,
                        "hosts": parsed.hosts,
                        "gpus": parsed.hosts * parsed.gpus,
                        "metrics": parsed.metrics,
                        "seed": parsed.seed,
                        "first_time": first,
                        "last_time": last,
                        "records": self._records,
                        "samples": self._samples,
                        "bytes": self._bytes,
                        "seconds": round(seconds, 3),
                        "samples_per_second": round(self._samples / seconds),
                        "behind_seconds": round(self._behind, 3),
                    }
                )
            )
        else:
            place = f"in {parsed.topic}" if parsed.csv is None else f"as {plural(self._samples, 'row')} of a dump"
            rate = f"{self._samples / seconds:,.0f} samples/s"
            say(
                f"stored {plural(self._records, 'record')} {place}: "
                f"{plural(self._samples, 'sample')} in {seconds:.1f} s ({rate})"
            )
            if is_late:
                note(
                    f"the last scrape was {self._behind:,.1f} s late: it is more than can be stored in that time; give "
                    "fewer GPUs or a lower --speed"
                )
        sys.stdout.flush()


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that what is on its way is stored and counted; the second interrupts."""
    stop = threading.Event()

    def stopped(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (what a handler gets)
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stopped) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
