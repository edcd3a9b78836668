"""The store interface: what the collector writes to and the api reads from.

A store keeps wide rows, one per GPU and time: tags as text columns, one float column a metric. All answer the same
questions (`Store`), and each is written to in one of two ways, which make each record be stored exactly once:

- A `ColumnStore` keeps, in the same commit as the rows, the position (log id, next offset) up to which each partition
  log has been stored. Its position is the truth: a collector goes on from there, backwards too.
- A `LineStore` knows a point by its identity (tags and time), so that one that is written again overwrites itself. It
  keeps no position: a collector goes on where its group stands.

All calls block; services call them through a thread. A store may be used from several threads at once.
Times are nanoseconds since the epoch, UTC; ranges are half open: `start_ns <= time < end_ns`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pyarrow as pa

    from telemetry_broker._core import LineBatch


class ArrowStream(Protocol):
    """Anything that gives an Arrow C stream: a pyarrow or arro3 table or reader, or what the core's codec returns."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


class ArrowArray(Protocol):
    """Anything that gives one Arrow record batch by the C data interface."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> Any: ...


Rows = ArrowStream | ArrowArray
"""Rows as the telemetry codecs give them: `time` as timestamp[ns, UTC] without nulls, tags as utf8 (dictionary-encoded
or not), metrics as float64. Columns may differ from one piece to the next; null is "no such tag" or "no value"."""


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """The part of one partition log that a write stores: from `first`, where the store stands, up to `next`, exclusive.

    `first` is the position gone on from, not the offset of the first record: a log has legal gaps.
    """

    first: int
    next: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a MIG slice of one, with its newest known tags; a tag that is not known is ''."""

    device_id: str
    gpu_id: str
    uuid: str
    model_name: str
    hostname: str
    container: str
    pod: str
    namespace: str
    instance_id: str
    """GPU_I_ID of a MIG slice; '' for a whole GPU."""
    last_seen_ns: int


@dataclass(frozen=True, slots=True)
class HostCount:
    """A host and how many GPUs were last seen on it."""

    hostname: str
    gpu_count: int


@dataclass(frozen=True, slots=True)
class NamespaceCount:
    """A Kubernetes namespace and how many GPUs were last seen in it."""

    namespace: str
    gpu_count: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric of one GPU at one time; a tag that is not known is ''."""

    device_id: str
    metric: str
    value: float
    time_ns: int
    gpu_id: str
    uuid: str
    model_name: str
    hostname: str
    container: str
    pod: str
    namespace: str
    labels_raw: str
    """The labels as dcgm-exporter writes them: `key="value"` pairs, comma separated, sorted by key."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which GPUs are meant: every field that is given must match, by one of its names. Empty fields do not narrow.

    At most `MAX_NAMES` names a field.
    """

    gpus: Collection[str] = ()
    """uuids, or device ids such as `nvidia0`, which may name GPUs of several hosts."""
    hostnames: Collection[str] = ()
    namespaces: Collection[str] = ()
    pods: Collection[str] = ()
    models: Collection[str] = ()


ALL_GPUS: Final = Filters()
MAX_NAMES: Final = 10_000

Aggregate = Literal["mean", "min", "max", "last", "p95"]
"""How the values of a window become one. `p95` is approximate (a t-digest)."""

GroupBy = Literal["gpu", "host", "namespace", "pod", "none"]
"""Whose values come together in one row."""

KEY_COLUMNS: Final[dict[GroupBy, tuple[str, ...]]] = {
    "gpu": ("hostname", "device", "uuid", "GPU_I_ID"),
    "host": ("hostname",),
    "namespace": ("namespace",),
    "pod": ("namespace", "pod"),
    "none": (),
}
"""The columns of a series that say whose values a row holds, in the order in which its rows are sorted."""

MIN_WINDOW_NS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a series, right behind one row: its time, and the values of its key columns, in their order.

    It stays right when rows are added, anywhere.
    """

    time_ns: int
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """What a series is made of.

    Attributes:
        metrics: one column each; empty: all. Names that were never stored are left out.
        filters: by the tags that the rows had when they were stored.
        start_ns, end_ns: `start_ns <= time < end_ns`; None: no bound.
        window_ns: length of a window, from `MIN_WINDOW_NS` on, in whole microseconds. Windows begin at multiples of it
            since the epoch. None: no windows, each stored time stands for itself.
        aggregate: of the values in one window and group. Samples weigh the same, whichever GPU they come from.
        descending: newest first; rows of one time are by key, ascending, either way.
        limit: at most so many rows; None: all.
        after: only rows behind this place in the order, to page on.
    """

    metrics: Collection[str] = ()
    filters: Filters = ALL_GPUS
    start_ns: int | None = None
    end_ns: int | None = None
    window_ns: int | None = None
    aggregate: Aggregate = "mean"
    group_by: GroupBy = "gpu"
    descending: bool = False
    limit: int | None = None
    after: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What is stored within a time range."""

    samples: int
    """Values: fields that are not null."""
    gpus: int
    hosts: int


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a store keeps what it has, by the time of the samples, in seconds; None: for ever."""

    samples: float | None = None
    minutes: float | None = None
    """Rollups of a minute."""
    hours: float | None = None
    """Rollups of an hour."""


class Store(Protocol):
    """What every store answers. See the module for threads, times and ranges. Errors are `StoreError`s."""

    def gpus(self) -> list[Gpu]:
        """Return every GPU ever stored, by hostname, device and uuid. Does not scan history on each call."""
        ...

    def gpu(self, gpu: str, *, hostname: str | None = None) -> list[Gpu]:
        """Return the GPUs, and MIG slices, that a uuid or device id names, in the order of `gpus`; none: an empty list.

        Args:
            gpu: a uuid, or a device id such as `nvidia0`, which may name GPUs of several hosts.
            hostname: only the one of this host.
        """
        ...

    def hosts(self) -> list[HostCount]:
        """Return the hosts on which GPUs were last seen, by name."""
        ...

    def namespaces(self) -> list[NamespaceCount]:
        """Return the namespaces in which GPUs were last seen, by name; GPUs without one are not counted."""
        ...

    def metrics(self) -> list[str]:
        """Return the names of all metrics ever stored, sorted."""
        ...

    def tags(self) -> list[str]:
        """Return the names of all tags that there is a column for, sorted."""
        ...

    def telemetry(
        self,
        gpu: str,
        *,
        hostname: str | None = None,
        metrics: Collection[str] = (),
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int = 100,
    ) -> Iterator[Sample]:
        """Give samples of a GPU: newest first without a range, oldest first where `start_ns` or `end_ns` is given.

        Samples of one time are in the order of uuid and metric. They are read as they are asked for, from the state
        that the store had at the time of the call.

        Args:
            gpu: a uuid, or a device id such as `nvidia0`; one that names several GPUs answers for all.
            hostname: only GPUs of this host.
            metrics: only these; empty: all. Names that were never stored give nothing.
            limit: at most so many samples.
        """
        ...

    def latest(self, metrics: Collection[str] = (), filters: Filters = ALL_GPUS) -> pa.Table:
        """Return the last values of GPUs, one row a GPU or MIG slice, in the order of `gpus`. Does not scan history.

        Columns: `hostname`, `device`, `uuid`, `GPU_I_ID`, `gpu`, `model`, `container`, `pod`, `namespace` (text, the
        newest known, '' if not known), `time` (timestamp[ns, UTC]: the newest sample of any metric), and for each
        metric a struct `{value: float64, time: timestamp[ns, UTC]}`: its last value that is not null, and when that
        was; null where the GPU never had one.

        Args:
            metrics: only these, in this order; empty: all, sorted. Names that were never stored are left out.
            filters: by the newest tags.

        Raises:
            StoreQueryError: a filter has too many names.
        """
        ...

    def series(self, query: SeriesQuery) -> pa.RecordBatchReader:
        """Give values over time, streamed: one row for each time (or window) and group that has a value.

        Columns: `time` (timestamp[ns, UTC]: when, or the begin of the window), the columns of
        `KEY_COLUMNS[query.group_by]` (text, '' for none), and a float64 for each metric, null where there is no value.
        Rows are in the order of time, then of the key columns. To page on, give the last row as `query.after`.

        They are read as they are asked for, from the state that the store had at the time of the call, in bounded
        memory. `mean`, `min` and `max` of whole minutes and hours are answered from rollups where there are some: the
        same values, in a fraction of the time, and also for times whose samples are past their retention.

        Raises:
            StoreQueryError: a window, limit, range, cursor or filter that is not possible; the message says which.
            StoreError: also while it is read: the store could not be read.
        """
        ...

    def sql(self, query: str) -> pa.RecordBatchReader:
        """Answer one query in SQL, DataFusion's dialect, streamed. Reads, and does nothing else.

        Tables: `gpu` (the stored rows: `time` as a timestamp, UTC, a text column a tag, a float64 a metric), and where
        the store keeps them the rollups `gpu_1m` and `gpu_1h` (`time`: begin of the window; `METRIC_count`, `_sum`,
        `_min`, `_max`). Rows come in the order that the query asks for, or in any.

        Raises:
            StoreQueryError: it is not one query, or not one that can be answered; the message says why.
            StoreError: also while it is read: the store could not be read.
        """
        ...

    def summary(self, start_ns: int | None = None, end_ns: int | None = None) -> Summary:
        """Count samples, GPUs and hosts within a range; without bounds, of all that is stored."""
        ...

    def maintain(self, retention: Retention) -> bool:
        """Do some of the upkeep that is due: merge small files, make rollups, remove what is past its retention.

        Call it now and then from one thread; writers and readers go on meanwhile. Several processes may: one of them
        does the work.

        Returns:
            Whether more is due at once.

        Raises:
            StoreConflictError: another process came between; nothing is lost, nothing needs to be done.
            StoreError: the disk or the network failed; what was begun is not in the store. Try again later.
        """
        ...

    def close(self) -> None:
        """Give back what the store holds; may be called twice."""
        ...


@runtime_checkable
class ColumnStore(Store, Protocol):
    """A store of rows with positions."""

    def positions(self, log_ids: Collection[str]) -> dict[str, int]:
        """Return the next offset to store for each of these logs; a log of which nothing is stored is absent.

        Makes the store (folder, table) where there is none, so that a store that cannot be written says so at start.

        Raises:
            StoreUnwritableError: the place cannot be made or written.
            StoreForeignError: the place holds something else.
        """
        ...

    def write(self, rows: Sequence[Rows], positions: Mapping[str, OffsetRange]) -> int:
        """Store these rows and move these positions, all in one commit, and return the number of rows.

        Both happen, or neither, through any crash; for a local store both are on disk (fsynced) on return.
        It happens only if the stored position of each log equals its range's `first`; for a log that the store does not
        know, `first` may be anything. Rows may be empty (positions only), and so may positions (rows that come from
        no log). Columns that are new are added.

        Raises:
            StorePositionError: some log's stored position is not `first`; nothing was stored. Seek to the stored one.
            StoreSchemaError: a column is not what the store takes; nothing was stored, and a retry will not help.
            StoreConflictError: other writers kept winning; nothing was stored. Retry with the same arguments.
            StoreError: of any other class: the disk or the network failed, perhaps behind the commit. Retry with the
                same arguments; had it been stored, StorePositionError then says so. Rows without positions would be
                stored twice by that.
        """
        ...


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that a store will never take as it is.

    Attributes:
        line: its number in the batch, from 0.
        reason: what the store says of it.
    """

    line: int
    reason: str


@runtime_checkable
class LineStore(Store, Protocol):
    """A store of line protocol, each point of which is its own identity.

    Attributes:
        batch_bytes: how large a batch it takes best; larger ones are cut.
        writes_in_flight: how many batches are written at the same time, for it answers late and takes many.
    """

    batch_bytes: int
    writes_in_flight: int

    def prepare(self) -> None:
        """Make the place where there is none, and see that it can be written.

        Raises:
            StoreUnavailableError: it does not answer. Try again.
            StoreDeniedError: the token is not known, or has no right to write.
            StoreForeignError: something else answers there.
        """
        ...

    def write_lines(self, lines: LineBatch) -> list[RefusedLine]:
        """Store these lines but those that are given back, which the store will never take; their neighbours are in.

        Raises:
            StoreError: some lines may be stored, and some not. Retry with the same lines: those overwrite themselves.
        """
        ...
