"""The newest that is known of each GPU: its tags, and the last value of each metric.

Kept up to date by reading only the files whose rows are new since the last time. It is written down beside the table
now and then (`as_bytes`), so that a process that begins reads what came after that, and no history.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from telemetry_services.store import columns
from telemetry_services.store.base import Filters, Gpu
from telemetry_services.store.parts import Part, chunked
from telemetry_services.store.series_sql import tags_of

Identity = tuple[str, str, str, str]
"""(uuid, MIG instance, '', '') of a GPU that has a uuid; else ('', MIG instance, hostname, device)."""

TAGS: Final = ("hostname", "device", "uuid", columns.INSTANCE_ID, "gpu", "model", "container", "pod", "namespace")
_SEEN: Final = "seen"
_ID: Final = ("id_uuid", "id_instance", "id_hostname", "id_device")
_MAX_CELLS: Final = 8 << 20  # of the files read at a time
_NS: Final = pa.timestamp("ns", tz="UTC")
_META: Final = b"telemetry.latest"

_log = logging.getLogger(__name__)


class Source(Protocol):
    """One state of a store, as `queries.Snapshot`."""

    @property
    def schema(self) -> pa.Schema: ...
    @property
    def parts(self) -> Sequence[Part]: ...
    @property
    def version(self) -> int: ...
    def dataset(self, parts: Sequence[Part], /) -> ds.Dataset: ...


class Latest:
    """The newest of each GPU ever stored. Not safe for threads."""

    def __init__(self) -> None:
        self.version = -1
        """Everything in the store at this version is taken in; -1: nothing yet."""
        self._keys: frozenset[str] = frozenset()  # files of new rows in that version
        self._metrics: list[str] = []
        self._rows = newest_schema([]).empty_table()
        self._positions: dict[Identity, int] = {}
        self._in_order: pa.Table | None = None
        self._gpus: list[Gpu] | None = None
        self._uuids: frozenset[str] | None = None

    def refresh(self, snapshot: Source) -> None:
        """Take in what is new in `snapshot`."""
        new = [part for part in snapshot.parts if not self._knows(part)]
        metrics = columns.metrics(snapshot.schema)
        for chunk in _chunks(sorted(new, key=lambda part: part.min_us), len(metrics) + len(TAGS)):
            self._take_in(snapshot.dataset(chunk), metrics)
        self.version = snapshot.version
        self._keys = frozenset(part.key for part in snapshot.parts if part.merged_at is None)

    def take_in(self, new: pa.Table, metrics: Sequence[str]) -> None:
        """Take in the newest of some GPUs, each at most once, in the columns of `newest_schema(metrics)`."""
        if not new.num_rows:
            return
        self._add_metrics(metrics)
        old_at: list[int | None] = list(range(len(self._positions)))
        new_at: list[int | None] = [None] * len(old_at)
        for at, identity in enumerate(_identities(new)):
            position = self._positions.setdefault(identity, len(old_at))
            if position == len(old_at):
                old_at.append(None)
                new_at.append(None)
            new_at[position] = at
        old = self._rows.take(pa.array(old_at, pa.int64()))
        new = new.take(pa.array(new_at, pa.int64()))
        newer = _at_least(new[_SEEN], old[_SEEN])
        merged = {name: pc.if_else(newer, new[name], old[name]) for name in (*TAGS, _SEEN)}
        for name in self._metrics:
            value, time = _value(name), _time(name)
            if time in new.schema.names:
                newer = _at_least(new[time], old[time])
                merged[value] = pc.if_else(newer, new[value], old[value])
                merged[time] = pc.if_else(newer, new[time], old[time])
            else:
                merged[value], merged[time] = old[value], old[time]
        self._rows = pa.table(merged).combine_chunks()
        self._in_order = self._gpus = self._uuids = None

    def uuids(self) -> frozenset[str]:
        """Return the uuids of all GPUs that have one."""
        if self._uuids is None:
            self._uuids = frozenset(self._rows["uuid"].to_pylist()) - {""}
        return self._uuids

    def counts(self, tag: str) -> list[tuple[str, int]]:
        """Return the values of a tag, sorted, and how many GPUs have each."""
        counted = pc.value_counts(self._rows[tag]).to_pylist()
        return sorted((entry["values"], entry["counts"]) for entry in counted if entry["values"])

    def gpus(self) -> list[Gpu]:
        """Return the GPUs by hostname, device and uuid."""
        if self._gpus is None:
            rows = self._sorted()
            tags = [rows[name].to_pylist() for name in TAGS]
            self._gpus = [
                Gpu(device, index, uuid, model, hostname, container, pod, namespace, instance, seen)
                for hostname, device, uuid, instance, index, model, container, pod, namespace, seen in zip(
                    *tags, rows[_SEEN].to_pylist(), strict=True
                )
            ]
        return list(self._gpus)

    def table(self, metrics: Collection[str], filters: Filters) -> pa.Table:
        """Return the last values, as `Store.latest` gives them."""
        chosen = [name for name in dict.fromkeys(metrics or sorted(self._metrics)) if name in self._metrics]
        rows = self._sorted()
        wanted = matching(filters)
        if wanted is not None:
            rows = rows.filter(wanted)
        shown = {name: rows[name] for name in TAGS}
        shown[columns.TIME] = rows[_SEEN].cast(_NS)
        for name in chosen:
            values, times = rows[_value(name)].combine_chunks(), rows[_time(name)].combine_chunks().cast(_NS)
            shown[name] = pa.StructArray.from_arrays([values, times], ["value", "time"], mask=pc.is_null(times))
        return pa.table(shown)

    def as_bytes(self) -> bytes:
        """Write it down, to be gone on from by `from_bytes`."""
        meta = {"version": self.version, "keys": sorted(self._keys), "metrics": self._metrics}
        sink = pa.BufferOutputStream()
        with_meta = self._rows.replace_schema_metadata({_META: json.dumps(meta).encode()})
        pq.write_table(with_meta, sink, compression="zstd", write_statistics=False)
        return bytes(sink.getvalue())

    @classmethod
    def from_bytes(cls, content: bytes) -> Latest:
        """Read what was written down; what cannot be read is told and left out: then history is read once."""
        latest = cls()
        try:
            rows = pq.read_table(pa.BufferReader(content))
            meta = json.loads(rows.schema.metadata[_META])
            latest._metrics = list(meta["metrics"])
            latest._rows = rows.select(newest_schema(latest._metrics).names).replace_schema_metadata(None)
            latest._keys, version = frozenset(meta["keys"]), int(meta["version"])
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("what was written down of the newest values cannot be read, and is made anew: %s", error)
            return cls()
        latest._positions = {identity: at for at, identity in enumerate(_identities(latest._rows))}
        latest.version = version
        return latest

    def _knows(self, part: Part) -> bool:
        return part.key in self._keys if part.merged_at is None else part.merged_at <= self.version

    def _take_in(self, dataset: ds.Dataset, metrics: Sequence[str]) -> None:
        rows = dataset.to_table([*columns.BASE_TAGS, columns.TIME, columns.NANOS, *metrics])
        self.take_in(_newest_of(rows, metrics), metrics)

    def _add_metrics(self, metrics: Sequence[str]) -> None:
        for name in metrics:
            if name not in self._metrics:
                self._metrics.append(name)
                nulls = pa.nulls(self._rows.num_rows, pa.float64()), pa.nulls(self._rows.num_rows, pa.int64())
                self._rows = self._rows.append_column(_value(name), nulls[0]).append_column(_time(name), nulls[1])

    def _sorted(self) -> pa.Table:
        if self._in_order is None:
            keys = list(zip(*(self._rows[name].to_pylist() for name in TAGS[:4]), strict=True))
            order = pa.array(sorted(range(len(keys)), key=keys.__getitem__), pa.int64())
            self._in_order = self._rows.take(order).combine_chunks()
        return self._in_order


def newest_schema(metrics: Sequence[str]) -> pa.Schema:
    """Return the columns of what is known of each GPU.

    They are its tags ('' for none), when it was last seen, in nanoseconds, and for each metric the last value and when
    that was, null for none.
    """
    fields = [(name, pa.string()) for name in TAGS] + [(_SEEN, pa.int64())]
    for name in metrics:
        fields += [(_value(name), pa.float64()), (_time(name), pa.int64())]
    return pa.schema(fields)


def matching(filters: Filters) -> pc.Expression | None:
    """Return which rows of tags `filters` means; None: all."""
    together = _of(filters.gpus, "uuid", "device")
    for tag, names in tags_of(filters):
        expression = _of(names, tag)
        if expression is not None:
            together = expression if together is None else together & expression
    return together


def _of(names: Collection[str], *tags: str) -> pc.Expression | None:
    if not names:
        return None
    values = pa.array(sorted(set(names)), pa.string())
    expression = pc.field(tags[0]).isin(values)
    for tag in tags[1:]:
        expression = expression | pc.field(tag).isin(values)
    return expression


def _newest_of(rows: pa.Table, metrics: Sequence[str]) -> pa.Table:
    """Return one row a GPU, in the columns of `newest_schema`, out of stored rows."""
    ns = pc.add(pc.multiply(rows[columns.TIME].cast(pa.int64()), 1000), rows[columns.NANOS].cast(pa.int64()))
    tags = {name: pc.fill_null(rows[name], "") for name in TAGS}
    anonymous = pc.equal(tags["uuid"], "")
    needed: dict[str, pa.ChunkedArray] = {
        "id_uuid": tags["uuid"],
        "id_instance": tags[columns.INSTANCE_ID],
        "id_hostname": pc.if_else(anonymous, tags["hostname"], ""),
        "id_device": pc.if_else(anonymous, tags["device"], ""),
        _SEEN: ns,
        **tags,
    }
    for name in metrics:
        needed[_value(name)] = rows[name]
        needed[_time(name)] = pc.if_else(pc.is_valid(rows[name]), ns, pa.scalar(None, pa.int64()))
    table = pa.table(needed).filter(pc.invert(pc.and_(anonymous, pc.equal(tags["device"], ""))))
    table = table.take(pc.sort_indices(table[_SEEN]))
    last = [*TAGS, *(_value(name) for name in metrics)]
    newest = [_SEEN, *(_time(name) for name in metrics)]
    grouped = table.group_by(list(_ID), use_threads=False).aggregate(
        [*((name, "last") for name in last), *((name, "max") for name in newest)]
    )
    found = {**{f"{name}_last": name for name in last}, **{f"{name}_max": name for name in newest}}
    grouped = grouped.select(list(found)).rename_columns(list(found.values()))
    return grouped.select(newest_schema(metrics).names)


def _identities(rows: pa.Table) -> Iterator[Identity]:
    for hostname, device, uuid, instance in zip(*(rows[name].to_pylist() for name in TAGS[:4]), strict=True):
        yield (uuid, instance, "", "") if uuid else ("", instance, hostname, device)


def _at_least(new: pa.ChunkedArray, old: pa.ChunkedArray) -> pa.ChunkedArray:
    """Tell where `new` is there and no older than `old`."""
    return pc.and_(pc.is_valid(new), pc.fill_null(pc.greater_equal(new, old), True))


def _value(metric: str) -> str:
    return f"v:{metric}"


def _time(metric: str) -> str:
    return f"t:{metric}"


def _chunks(parts: Sequence[Part], width: int) -> Iterator[list[Part]]:
    """Cut parts into chunks of bounded size; one whose rows are not known stands alone."""
    return chunked(parts, lambda part: _MAX_CELLS if part.rows is None else part.rows * width, _MAX_CELLS)
