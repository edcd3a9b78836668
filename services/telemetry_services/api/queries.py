"""The questions that REST and gRPC answer, over the fleet in memory and the store. They raise ApiError.

What is asked of the store runs in a thread, is measured, and is bounded: in the length of its range, the number of its
windows, and the rows of its answer.
"""

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import Any, Final, Literal, TypeVar

import pyarrow as pa

from telemetry_services.api.catalogue import nearest
from telemetry_services.api.live.fleet import Fleet, Value
from telemetry_services.api.live.listing import Listing, Order, order_of
from telemetry_services.api.live.selection import Selection
from telemetry_services.api.problems import ApiError
from telemetry_services.api.times import parse_time
from telemetry_services.config.values import parse_duration
from telemetry_services.observability import metrics
from telemetry_services.store import Aggregate, Cursor, Gpu, Sample, SeriesQuery, Store
from telemetry_services.store.base import KEY_COLUMNS, GroupBy

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 100_000
MAX_RANGE_DAYS: Final = 31
"""Of samples as they were stored; a longer range needs windows."""
MAX_WINDOWS: Final = 20_000
MIN_WINDOW_SECONDS: Final = 0.001
MAX_WINDOW_SECONDS: Final = 366 * 86_400.0
MAX_METRICS: Final = 50
MAX_SECONDS: Final = 30.0
"""After which a question to the store is given up."""

_DAY_NS: Final = 86_400_000_000_000
_MAX_CURSOR_CHARS: Final = 4096

T = TypeVar("T")
Direction = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class TimeRange:
    """`start_ns <= time < end_ns`; None: no bound."""

    start_ns: int | None = None
    end_ns: int | None = None


@dataclass(frozen=True, slots=True)
class GpuPage:
    """GPUs by their numbers, how many are meant in all, and where the next page begins; None: these were the last."""

    numbers: list[int]
    total: int
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class SeriesAnswer:
    """Rows of a series, and where the next page begins; None: these were the last."""

    table: pa.Table
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class SamplesAnswer:
    """Samples of a GPU, and where the next page begins; None: these were the last, or there are no pages."""

    samples: Sequence[Sample]
    next_cursor: str | None


def refuse(message: str, code: str = "invalid.request", status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> ApiError:
    """The error for a question that makes no sense."""
    return ApiError(status, code, message)


def parse_range(start: str | None, end: str | None, *, end_included: bool = True) -> TimeRange:
    """The range between two times: RFC 3339, or a time back from now such as `-1h`."""
    start_ns, end_ns = _time("start", start), _time("end", end)
    if start_ns is not None and end_ns is not None and start_ns > end_ns:
        raise refuse(f"start ({start}) is after end ({end}): give the earlier one as start")
    return TimeRange(start_ns, end_ns + 1 if end_ns is not None and end_included else end_ns)


def _time(name: str, text: str | None) -> int | None:
    if not text:
        return None
    try:
        if text.startswith("-"):
            return time.time_ns() - round(parse_duration(text[1:]) * 1e9)
        # A "+" of an offset arrives as a space when a client does not escape it.
        return parse_time(text.replace(" ", "+") if text[10:11] in "Tt" else text)
    except ValueError as err:
        why = str(err) if not text.startswith("-") else f"{text!r} is not a time back from now such as -1h or -30m"
        raise refuse(f"{name}: {why}") from err


def parse_window(text: str | None) -> int | None:
    """The nanoseconds of a window such as `30s`; None: no windows."""
    if not text:
        return None
    try:
        seconds = parse_duration(text)
    except ValueError as err:
        raise refuse(f"window: {text!r} is not a duration: send one such as 30s, 5m or 1h") from err
    if not MIN_WINDOW_SECONDS <= seconds <= MAX_WINDOW_SECONDS:
        raise refuse(f"window: {text!r} is out of bounds: send 1ms to 366 days (8784h)")
    return round(seconds * 1_000_000) * 1000


def encode_cursor(parts: Sequence[Any]) -> str:
    """A cursor, which says nothing to callers."""
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def decode_cursor(text: str, kind: str, length: int) -> list[Any]:
    """The parts of a cursor that an answer to the same question gave."""
    try:
        if len(text) > _MAX_CURSOR_CHARS:
            raise ValueError("too long")
        parts = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        if not isinstance(parts, list) or len(parts) != length or parts[0] != kind:
            raise ValueError("of another question")
    except (ValueError, binascii.Error, UnicodeDecodeError, RecursionError) as err:
        raise _foreign_cursor() from err
    return parts


def _foreign_cursor() -> ApiError:
    return refuse(
        "cursor: not one that an answer to this question gave: send next_cursor as it came, or none to begin anew",
        "invalid.cursor",
    )


class Queries:
    """Answers.

    Args:
        service: label of the metrics.
    """

    def __init__(self, fleet: Fleet, store: Store, service: str) -> None:
        self.fleet = fleet
        self.listing = Listing(fleet)
        self._store = store
        self._service = service

    # Of the fleet

    def page_of_gpus(self, selection: Selection, limit: int | None, cursor: str | None) -> GpuPage:
        """The GPUs that are meant, by host, device and uuid; without a limit all of them."""
        after: Order | None = None
        if cursor:
            _, *place = decode_cursor(cursor, "g", 5)
            if not all(isinstance(part, str) for part in place):
                raise _foreign_cursor()
            after = (place[0], place[1], place[2], place[3])
        found = self.listing.find(selection, after)
        total = len(found) if after is None else len(self.listing.find(selection))
        page = found if limit is None else found[:limit]
        more = len(page) < len(found)
        return GpuPage(page, total, encode_cursor(["g", *order_of(self.listing.gpu(page[-1]))]) if more else None)

    def latest(self, name: str, hostname: str | None = None) -> list[tuple[Gpu, list[Value]]]:
        """The GPUs that a uuid or device id names, with their newest values."""
        wanted = Selection(gpus=(name,), hostnames=(hostname,) if hostname else ())
        return self.latest_of(wanted)

    def latest_of(self, selection: Selection, metrics: Collection[str] = ()) -> list[tuple[Gpu, list[Value]]]:
        """The GPUs that are meant, with their newest values."""
        numbers = self.listing.find(selection)
        with self.fleet.lock:
            return [(self.fleet.gpu(number), self.fleet.values(number, metrics)) for number in numbers]

    async def metrics(self) -> list[str]:
        """The names of all metrics, stored or seen."""
        stored = await self.read("metrics", lambda store: store.metrics())
        return sorted({*stored, *self.fleet.metrics()})

    async def check_metrics(self, names: Collection[str]) -> None:
        """Refuses a metric that nobody knows, and names the nearest one."""
        if len(names) > MAX_METRICS:
            raise refuse(f"metric: {len(names)} of them: send at most {MAX_METRICS}")
        seen = self.fleet.metrics()
        unknown = [name for name in names if name not in seen]
        if not unknown:
            return
        known = await self.metrics()
        for name in unknown:
            if name not in known:
                like = nearest(name, known)
                remedy = f"did you mean {like}?" if like else "GET /api/v1/metrics lists those that there are"
                shown = name if len(name) <= 100 else f"{name[:100]}..."
                raise refuse(
                    f"metric: there is none called {shown!r}: {remedy}", "metric.unknown", HTTPStatus.NOT_FOUND
                )

    # Of the store

    async def samples(
        self,
        name: str,
        *,
        hostname: str | None,
        metrics: Sequence[str],
        between: TimeRange,
        limit: int,
        cursor: str | None = None,
    ) -> SamplesAnswer:
        """Samples of a GPU as they were stored: newest first without a range, else oldest first, in pages."""
        _check_raw_range(between)
        has_range = between != TimeRange()
        skipped = 0
        if cursor:
            _, start_ns, skipped = decode_cursor(cursor, "s", 3)
            if not has_range or not all(isinstance(part, int) and 0 <= part < 1 << 63 for part in (start_ns, skipped)):
                raise _foreign_cursor()
            between = TimeRange(start_ns, between.end_ns)

        def read(store: Store) -> list[Sample]:
            found = store.telemetry(
                name,
                hostname=hostname,
                metrics=metrics,
                start_ns=between.start_ns,
                end_ns=between.end_ns,
                limit=limit + skipped + 1,
            )
            return list(islice(found, skipped, limit + skipped + 1))

        samples = await self.read("telemetry", read)
        if not has_range or len(samples) <= limit:
            return SamplesAnswer(samples[:limit], None)
        samples = samples[:limit]
        last_ns = samples[-1].time_ns
        at_last = sum(sample.time_ns == last_ns for sample in samples)
        if cursor and last_ns == between.start_ns:
            at_last += skipped
        return SamplesAnswer(samples, encode_cursor(["s", last_ns, at_last]))

    async def series(
        self,
        *,
        selection: Selection,
        metrics: Sequence[str],
        between: TimeRange,
        window_ns: int | None,
        aggregate: Aggregate = "mean",
        group_by: GroupBy = "gpu",
        order: Direction = "asc",
        limit: int,
        cursor: str | None = None,
    ) -> SeriesAnswer:
        """Values over time, as columns."""
        if window_ns is None:
            _check_raw_range(between)
        else:
            _check_windows(between, window_ns)
        keys = KEY_COLUMNS[group_by]
        after = None
        if cursor:
            _, time_ns, *key = decode_cursor(cursor, "q", 2 + len(keys))
            if not isinstance(time_ns, int) or not all(isinstance(part, str) for part in key):
                raise _foreign_cursor()
            after = Cursor(time_ns, tuple(key))
        query = SeriesQuery(
            metrics=metrics,
            filters=selection.filters(),
            start_ns=between.start_ns,
            end_ns=between.end_ns,
            window_ns=window_ns,
            aggregate=aggregate,
            group_by=group_by,
            descending=order == "desc",
            limit=limit + 1,
            after=after,
        )
        table = await self.read("series", lambda store: store.series(query).read_all())
        if table.num_rows <= limit:
            return SeriesAnswer(table, None)
        table = table.slice(0, limit)
        last_ns = table["time"].cast(pa.int64())[limit - 1].as_py()
        last = [table[name][limit - 1].as_py() or "" for name in keys]
        return SeriesAnswer(table, encode_cursor(["q", last_ns, *last]))

    async def read(self, operation: str, read: Callable[[Store], T]) -> T:
        """Asks the store in a thread, for at most so long."""
        outcome = "error"
        with metrics.DATABASE_SECONDS.labels(self._service, operation).time():
            try:
                async with asyncio.timeout(MAX_SECONDS):
                    result = await asyncio.to_thread(read, self._store)
                outcome = "success"
            except TimeoutError as error:
                raise ApiError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "store.slow",
                    f"the store took over {MAX_SECONDS:g} s: ask for a shorter range, fewer GPUs or larger windows",
                    {"Retry-After": "5"},
                ) from error
            finally:
                metrics.DATABASE_OPERATIONS.labels(self._service, operation, outcome).inc()
        return result


def _check_raw_range(between: TimeRange) -> None:
    start, end = between.start_ns, between.end_ns
    if start is not None and (end or time.time_ns()) - start > MAX_RANGE_DAYS * _DAY_NS:
        raise refuse(
            f"the range is longer than {MAX_RANGE_DAYS} days: send a later start, or a window such as window=1h"
        )


def _check_windows(between: TimeRange, window_ns: int) -> None:
    if between.start_ns is None:
        raise refuse("windows need a range: send start, such as start=-1h")
    windows = ((between.end_ns or time.time_ns()) - between.start_ns) // window_ns
    if windows > MAX_WINDOWS:
        raise refuse(f"{windows:,} windows are too many: send at most {MAX_WINDOWS:,}, by a larger window")
