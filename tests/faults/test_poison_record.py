"""A record that kills its consumer, and the embedded broker with it, does not do so forever."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import telemetry_broker as tb

MAX_ATTEMPTS = 3

# Handles record by record and says what it handled.
_CONSUMER = """
import os, resource, sys
import telemetry_broker as tb

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # nobody wants the core files
with tb.connect(sys.argv[1]) as broker:
    with broker.consumer("t", "g", max_records=int(sys.argv[2])) as consumer:
        while batch := consumer.receive():
            for offset, value in zip(batch.offsets, batch.values):
                if value == b"poison":
                    os.abort()
                batch.ack([offset])
                print(value.decode(), flush=True)
"""


def consume(url: str, max_records: int) -> tuple[int, list[str]]:
    """Runs a consumer until it ends or is ended; gives its status and the values it handled."""
    command = [sys.executable, "-c", _CONSUMER, url, str(max_records)]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=30)
    return child.returncode, child.stdout.split()


@pytest.mark.parametrize("durability", ["os", "fsync"])
@pytest.mark.parametrize("max_records", [1, 500])
def test_a_record_whose_handler_aborts_the_process_is_dead_lettered_after_max_attempts(
    tmp_path: Path, durability: tb.Durability, max_records: int
) -> None:
    url = f"file://{tmp_path}"
    values = ["a", "b", "poison", "c", "d"]
    with tb.connect(url) as broker:
        broker.create_topic("t", partitions=1, durability=durability, max_attempts=MAX_ATTEMPTS)
        with broker.producer("t") as producer:
            for value in values:
                producer.send(value.encode())
    handled: list[str] = []
    for attempt in range(MAX_ATTEMPTS):
        status, more = consume(url, max_records)
        assert status == -signal.SIGABRT, f"attempt {attempt + 1}"
        handled += more
    status, more = consume(url, max_records)
    assert status == os.EX_OK
    handled += more
    # Its neighbours were in the same leases, and none of them was ever handled in vain.
    assert sorted(handled) == ["a", "b", "c", "d"]
    with tb.connect(url) as broker:
        assert broker.describe_group("t", "g").lag == 0
        assert broker.read("t.dlq", 0).values == [b"poison"]
