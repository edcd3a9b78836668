"""Records that cannot be decoded: into the dead-letter topic, with the reason; each is counted, none is lost."""

import logging
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from telemetry_broker import Batch
from telemetry_broker.errors import UnsupportedError
from telemetry_services.observability import metrics
from telemetry_services.text import printable

log = logging.getLogger(__name__)
_MAX_REASON_BYTES: Final = 4096


class DeadLetters:
    """Where a collector puts what it cannot decode."""

    def __init__(self, rejects_dir: Path, service: str = "collector") -> None:
        self._rejects_dir = rejects_dir
        self._service = service

    def put(self, batch: Batch, rejected: Sequence[tuple[int, str]]) -> None:
        """Dead-letters these records of a batch, before the batch is committed, so that no crash loses them.

        After a crash between the two they are there twice, with the same log id, offset and group.
        """
        for reason, group in groupby(sorted(rejected, key=lambda pair: pair[1]), key=lambda pair: pair[1]):
            offsets = [offset for offset, _ in group]
            # The decoder says a word; the store a sentence that names columns, which would be a series for each.
            label = reason if reason.isalnum() else "store"
            metrics.REJECTS.labels(self._service, label).inc(len(offsets))
            metrics.DATA_POINTS.labels(self._service, "rejected").inc(len(offsets))
            log.warning(
                "records cannot be decoded",
                extra={"topic": batch.topic, "partition": batch.partition, "records": len(offsets), "reason": reason},
            )
            try:
                batch.nack(offsets=offsets, dead_letter=True, reason=reason[:_MAX_REASON_BYTES])
            except UnsupportedError:
                self._keep(batch, offsets, reason)

    def _keep(self, batch: Batch, offsets: Sequence[int], reason: str) -> None:
        self._rejects_dir.mkdir(parents=True, exist_ok=True)
        path = self._rejects_dir / f"{batch.topic}.records"
        with path.open("ab") as file:
            for offset in offsets:
                place = f"{batch.log_id.hex()},{batch.partition},{offset},{printable(reason)},"
                file.write(place.encode() + repr(batch.values[offset - batch.base_offset]).encode() + b"\n")
        log.warning(
            "kept in a file, the broker has no dead letters", extra={"file": str(path), "records": len(offsets)}
        )
