"""Write a big DCGM dump: the real one, repeated with moved timestamps and new GPU ids.

    python benchmarks/make_dump.py ROWS FILE [--source CSV]

The source's GPUs become ten times as many: each repetition renames hosts (`...-031` -> `...-3-031`) and GPU UUIDs, the
first keeps them. After ten repetitions the time moves on by 30 s, dcgm-exporter's default interval. So no two rows have
the same time, GPU and metric. The output depends on nothing but the source and ROWS. Memory: some twelve times the
source, whatever ROWS is. FILE appears when it is complete.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count, groupby
from pathlib import Path

SAMPLE = Path(__file__).parents[1] / "services/telemetry_services/data/dcgm-sample.csv"
FLEETS = 10
INTERVAL = timedelta(seconds=30)

_UUID = re.compile(rb"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HOST_NUMBER = re.compile(rb"(-hgpu)-(\d+)")
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

Block = tuple[datetime, bytes, int]
"""Consecutive rows of one time: the time, the rows, and how many they are."""


def read_blocks(rows: list[bytes]) -> list[Block]:
    blocks = []
    for stamp, group in groupby(rows, key=lambda row: row.split(b",", 1)[0]):
        members = list(group)
        blocks.append((datetime.strptime(stamp.strip(b'"').decode(), _TIME_FORMAT), b"".join(members), len(members)))  # noqa: DTZ007, the Z is in the format
    return blocks


def renamed(block: Block, fleet: int) -> Block:
    """The block with the hosts and GPUs of another fleet; fleet 0 is the source's own."""
    time, text, rows = block
    if fleet:
        text = _HOST_NUMBER.sub(rb"\1-%d-\2" % fleet, text)
        text = _UUID.sub(lambda found: new_uuid(found[0], fleet), text)
    return time, text, rows


def new_uuid(uuid: bytes, fleet: int) -> bytes:
    digits = hashlib.blake2b(uuid, digest_size=16, salt=str(fleet).encode()).hexdigest()
    return f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}".encode()


def repetitions(source: list[Block]) -> Iterator[tuple[bytes, int]]:
    """Endless blocks of rows, and how many rows each is."""
    fleets: list[list[Block]] = []
    for scrape in count():
        for fleet in range(FLEETS):
            if len(fleets) <= fleet:
                fleets.append([renamed(block, fleet) for block in source])
            for time, text, rows in fleets[fleet]:
                moved = (time + scrape * INTERVAL).strftime(_TIME_FORMAT)
                yield text.replace(time.strftime(_TIME_FORMAT).encode(), moved.encode()), rows


def write_dump(rows: int, target: Path, source: Path = SAMPLE) -> int:
    """Write `rows` rows and the header to `target`; returns its size in bytes."""
    header, *lines = source.read_bytes().splitlines(keepends=True)
    if not lines:
        raise SystemExit(f"{source}: no rows to repeat; give a DCGM dump with --source")
    if not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb", buffering=1 << 20) as out:
        out.write(header)
        missing = rows
        for text, held in repetitions(read_blocks(lines)):
            if held >= missing:
                out.writelines(text.splitlines(keepends=True)[:missing])
                break
            out.write(text)
            missing -= held
        size = out.tell()
    partial.replace(target)
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description="Repeat a DCGM dump with moved timestamps and new GPU ids.")
    parser.add_argument("rows", type=int, help="data rows to write, 1 or more")
    parser.add_argument("file", type=Path, help="CSV file to write")
    parser.add_argument("--source", type=Path, default=SAMPLE, help="dump to repeat (default: the project's sample)")
    options = parser.parse_args()
    if options.rows < 1:
        parser.error(f"ROWS is {options.rows}; give 1 or more")
    if not options.source.is_file():
        parser.error(f"{options.source} is not there; name a DCGM dump with --source")
    size = write_dump(options.rows, options.file, options.source)
    print(f"{options.file}: {options.rows:,} rows, {size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
