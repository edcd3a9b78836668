"""`telemetry query` and `telemetry export`: what is stored, as tables, JSON, CSV and Parquet."""

import contextlib
import csv
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast, get_args

import click

from telemetry_broker.cli import output
from telemetry_broker.cli.values import duration, time_ns
from telemetry_services.cli.commands import CONTEXT
from telemetry_services.text import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from telemetry_services.store import Store

SHOWN_ROWS: Final = 1000
"""Rows of a table, whose widths need all of them at once."""

_STDOUT: Final = "-"
_FORMATS: Final = ("parquet", "csv")
_ROW_GROUP_ROWS: Final = 131_072


@dataclass(frozen=True, slots=True)
class _Where:
    """Which store is meant, as the flags say."""

    store: str | None
    data: str | None
    config: str | None

    @contextlib.contextmanager
    def opened(self) -> "Iterator[Store]":
        from telemetry_services import config
        from telemetry_services.config.models import StoreSettings
        from telemetry_services.store import open_store

        flags = {"store": self.store, "data_dir": self.data, "telemetry_config": self.config}
        settings = config.resolve(StoreSettings, {name: value for name, value in flags.items() if value}).checked()
        store = open_store(settings.store_url, **settings.store_credentials)
        try:
            yield store
        finally:
            store.close()


def _of_a_store(command: Callable[..., int]) -> Callable[..., int]:
    for option in (
        click.option("--config", "config", metavar="PATH", help="TOML file with settings.  [TELEMETRY_CONFIG]"),
        click.option("--data", "data", metavar="PATH", help="Folder whose `store` it is.  [DATA_DIR; default data]"),
        click.option("--store", "store", metavar="URL", help="The store.  [STORE; default: in --data]"),
    ):
        command = option(command)
    return command


@click.command("query", short_help="Ask the store in SQL; reads, and does nothing else.", context_settings=CONTEXT)
@click.argument("sql")
@_of_a_store
@click.option("--json", "form", flag_value="json", help="A JSON object a line.")
@click.option("--csv", "form", flag_value="csv", help="CSV with a heading.")
def query(sql: str, store: str | None, data: str | None, config: str | None, form: str | None) -> int:
    """Answer one query in SQL, DataFusion's dialect.

    Tables: `gpu`, with a text column a tag and a number a metric, and `gpu_1m` and `gpu_1h`, with METRIC_count, _sum,
    _min and _max of every minute and hour. Names in capitals stand in double quotes. A table of rows is cut at 1,000;
    JSON and CSV are not.

    Example: telemetry query 'SELECT hostname, max("DCGM_FI_DEV_GPU_TEMP") FROM gpu GROUP BY hostname'
    """
    with _Where(store, data, config).opened() as opened:
        rows = opened.sql(sql)
        if form == "json":
            for row in _rows(rows):
                output.json_line(dict(zip(rows.schema.names, row, strict=True)))
        elif form == "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(rows.schema.names)
            writer.writerows(_rows(rows))
        else:
            _show(rows)
    return 0


def _show(rows: "pa.RecordBatchReader") -> None:
    import pyarrow as pa

    listed = _rows(rows)
    shown = list(islice(listed, SHOWN_ROWS))
    headings = [
        f">{field.name}" if pa.types.is_integer(field.type) or pa.types.is_floating(field.type) else field.name
        for field in rows.schema
    ]
    output.table(headings, [["" if cell is None else _cell(cell) for cell in row] for row in shown])
    if next(listed, None) is not None:
        output.note(f"cut at {counted(SHOWN_ROWS, 'row')}: say LIMIT, or take --json or --csv for all")


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _rows(rows: "pa.RecordBatchReader") -> Iterator[Sequence[Any]]:
    """Give rows with times as RFC 3339, and values that JSON has no word for as text."""
    import pyarrow as pa

    for batch in rows:
        columns: list[list[object]] = []
        for field, column in zip(batch.schema, batch.columns, strict=True):
            if pa.types.is_timestamp(field.type):
                times = column.cast(pa.timestamp("ns", tz=field.type.tz)).cast(pa.int64()).to_pylist()
                columns.append([None if at is None else output.rfc3339(at) for at in times])
            else:
                columns.append([_plain(value) for value in column.to_pylist()])
        yield from zip(*columns, strict=True) if columns else iter(())


def _plain(value: object) -> object:
    if isinstance(value, float) and value - value != 0:  # nan and the infinities
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _time(_context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return time_ns(text)
    except ValueError as problem:
        try:
            return time.time_ns() - int(duration(text) * 1e9)
        except Exception as error:
            raise click.BadParameter(f"{problem}, nor an age such as 24h", param=parameter) from error


def _choice_of(name: str) -> click.Choice[str]:
    from telemetry_services.store import base

    return click.Choice([str(each) for each in get_args(getattr(base, name))])


@click.command("export", short_help="Write stored telemetry into a Parquet or CSV file.", context_settings=CONTEXT)
@click.argument("file", metavar="FILE")
@click.option("--format", "form", type=click.Choice(_FORMATS), help="Default: what FILE ends with.")
@click.option("--from", "start", metavar="TIME", callback=_time, help="First time: RFC 3339, or an age such as 24h.")
@click.option("--to", "end", metavar="TIME", callback=_time, help="Time behind the last one.")
@click.option("--metric", "metrics", metavar="NAME", multiple=True, help="Only this metric; may be repeated.")
@click.option("--gpu", "gpus", metavar="ID", multiple=True, help="Only this GPU: a uuid, or a device id.")
@click.option("--host", "hosts", metavar="NAME", multiple=True, help="Only GPUs of this host.")
@click.option("--window", metavar="DURATION", help="A row for each window of this length, such as 1m or 1h.")
@click.option("--agg", "aggregate", type=_choice_of("Aggregate"), default="mean", help="What a window's values become.")
@_of_a_store
def export(
    file: str,
    form: str | None,
    start: int | None,
    end: int | None,
    metrics: Sequence[str],
    gpus: Sequence[str],
    hosts: Sequence[str],
    window: str | None,
    aggregate: str,
    store: str | None,
    data: str | None,
    config: str | None,
) -> int:
    """Write telemetry into FILE, in the order of time: time, GPU, and a column a metric. `-` is standard output.

    FILE appears when it is whole, in place of one that is there.

    Example: telemetry export --from 24h --metric DCGM_FI_DEV_GPU_TEMP temperatures.parquet
    """
    from telemetry_services.store import Aggregate, Filters, SeriesQuery

    form = form or Path(file).suffix.removeprefix(".")
    if form not in _FORMATS:
        raise click.UsageError(f"{file}: which format? Give --format parquet or --format csv")
    try:
        window_ns = int(duration(window) * 1e9) if window else None
    except Exception as error:
        raise click.BadParameter(str(error), param_hint="--window") from error
    asked = SeriesQuery(
        metrics,
        Filters(gpus=gpus, hostnames=hosts),
        start_ns=start,
        end_ns=end,
        window_ns=window_ns,
        aggregate=cast("Aggregate", aggregate),
    )
    with _Where(store, data, config).opened() as opened:
        missing = sorted(set(metrics) - set(opened.metrics()))
        if missing:
            raise click.UsageError(
                f"no metric {missing[0]!r} is stored; telemetry query 'SHOW COLUMNS FROM gpu' lists those that are"
            )
        rows = opened.series(asked)
        with _written(file) as sink, _progress(start, end) as note:
            count = _write(rows, form, sink, note)
    if file != _STDOUT:
        output.note(f"{file}: {counted(count, 'row')}")
    return 0


def _write(rows: "pa.RecordBatchReader", form: str, sink: IO[bytes], note: "Callable[[pa.RecordBatch], None]") -> int:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    count = 0
    told = pa.schema([pa.field("time", pa.string()), *list(rows.schema)[1:]])
    with (
        pa_csv.CSVWriter(sink, told, write_options=pa_csv.WriteOptions(quoting_style="needed"))
        if form == "csv"
        else pq.ParquetWriter(sink, rows.schema, compression="zstd")
    ) as writer:
        for batch in rows:
            if form == "csv":
                times = pc.strftime(batch.column(0), format="%Y-%m-%dT%H:%M:%SZ")
                writer.write_batch(pa.record_batch([times, *batch.columns[1:]], told))
            else:
                writer.write_batch(batch, row_group_size=_ROW_GROUP_ROWS)
            count += batch.num_rows
            note(batch)
    return count


@contextlib.contextmanager
def _written(file: str) -> Iterator[IO[bytes]]:
    """Give a file to write to, which takes its name when it is whole."""
    if file == _STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(file)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with new.open("xb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        new.replace(path)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        new.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(start: int | None, end: int | None) -> "Iterator[Callable[[pa.RecordBatch], None]]":
    """Give what tells how far an export is: of the range, where that has both ends."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    end = end if end is not None else time.time_ns()
    columns = (TextColumn("{task.fields[rows]:,} rows"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("export", total=None if start is None else max(end - start, 1), rows=0)
        count = 0

        def note(batch: "pa.RecordBatch") -> None:
            nonlocal count
            count += batch.num_rows
            if batch.num_rows:
                at = batch.column(0)[-1].value - (start or 0)
                progress.update(task, completed=None if start is None else at, rows=count)

        yield note
