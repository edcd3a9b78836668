"""One state of a store, and how it is read: pyarrow opens its parts, DataFusion answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.dataset as ds

from telemetry_services.store.errors import StoreError
from telemetry_services.store.parts import Part

if TYPE_CHECKING:
    import datafusion

_QUERY_MEMORY_BYTES: Final = 128 << 20  # a sort or a group-by beyond it spills to disk


@dataclass(frozen=True, slots=True)
class Rollup:
    """Windows of one length, and what they hold: the samples of all parts sealed up to a number.

    Attributes:
        sealed: that number.
    """

    name: str
    step_ns: int
    sealed: int
    parts: Sequence[Part]
    dataset: Callable[[Sequence[Part]], ds.Dataset]

    def holds(self, part: Part) -> bool:
        """Tell whether all samples of a part are in it."""
        return part.sealed is not None and part.sealed <= self.sealed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of a store."""

    schema: pa.Schema
    parts: Sequence[Part]
    dataset: Callable[[Sequence[Part]], ds.Dataset]
    version: int = 0
    rollups: Sequence[Rollup] = ()
    """By growing length of their windows. None of them is newer than `parts`."""


def run(snapshot: Snapshot, parts: Sequence[Part], sql: str, bound: dict[str, Any]) -> pa.Table:
    """Answer a question about some parts, as the table `gpu`."""
    context = new_context()
    with reading_errors():
        context.register_dataset("gpu", snapshot.dataset(parts))
        return context.sql(sql, param_values=bound).to_arrow_table()


@contextmanager
def reading_errors() -> Iterator[None]:
    """Turn whatever goes wrong while parts are read into a `StoreError`."""
    try:
        yield
    except (StoreError, GeneratorExit):
        raise
    except Exception as error:  # DataFusion raises nothing narrower
        raise StoreError(f"the store could not be read: {type(error).__name__}: {error}") from error


def new_context() -> datafusion.SessionContext:
    """Return an empty context, with bounded memory."""
    import datafusion

    return datafusion.SessionContext(*_settings())


@cache
def _settings() -> tuple[datafusion.SessionConfig, datafusion.RuntimeEnvBuilder]:
    import datafusion

    runtime = datafusion.RuntimeEnvBuilder().with_disk_manager_os().with_fair_spill_pool(_QUERY_MEMORY_BYTES)
    return datafusion.SessionConfig().with_target_partitions(2).with_information_schema(True), runtime


def rows_of(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Give the rows of a small table."""
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def streamed(answer: datafusion.DataFrame) -> Iterator[pa.RecordBatch]:
    """Give the batches of an answer as they come about."""
    with reading_errors():
        for batch in answer.execute_stream():
            yield batch.to_pyarrow()
