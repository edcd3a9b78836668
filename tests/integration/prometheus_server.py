"""A real Prometheus that scrapes the services of a test, as a process."""

import re
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

PATIENCE = 60.0
_PAUSE = 0.2


class Prometheus:
    """Scrapes each second, until the end of the block.

    Args:
        program: path of `prometheus`.
        folder: for its configuration and its data.
        targets: `host:port` by the job's name.
    """

    def __init__(self, program: str, folder: Path, targets: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        jobs = "".join(
            f"  - {{job_name: {name}, static_configs: [{{targets: ['{target}']}}]}}\n"
            for name, target in targets.items()
        )
        configuration = folder / "prometheus.yml"
        configuration.write_text(f"global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}")
        self._process = subprocess.Popen(
            [
                program,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        address = self._wait_for(r"Listening on.* address=(\S+)")
        # It must not wait for somebody to read on.
        self._reader = threading.Thread(target=self._read_on)
        self._reader.start()
        self._http = httpx.Client(base_url=f"http://{address}", timeout=PATIENCE)

    def _wait_for(self, pattern: str) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line)
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError(f"Prometheus ended before it listened:\n{''.join(self._lines)}")

    def _read_on(self) -> None:
        assert self._process.stderr is not None
        self._lines.extend(self._process.stderr)

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The series that a query gives now; fails where Prometheus does not take it."""
        answer = self._http.get("/api/v1/query", params={"query": promql})
        assert answer.status_code == 200, f"{promql}: {answer.text}"
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def wait_for(self, promql: str) -> list[dict[str, Any]]:
        """The series that a query gives, once it gives any."""
        deadline = time.monotonic() + PATIENCE
        while not (series := self.query(promql)):
            assert time.monotonic() < deadline, (
                f"{promql} gives nothing; targets:\n{self._http.get('/api/v1/targets').text}"
            )
            time.sleep(_PAUSE)  # Prometheus tells nobody of a scrape
        return series

    def __enter__(self) -> Self:
        # Its API answers 503 until it has read its data.
        deadline = time.monotonic() + PATIENCE
        while self._http.get("/-/ready").status_code != 200:
            assert time.monotonic() < deadline, "".join(self._lines)
            time.sleep(_PAUSE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
