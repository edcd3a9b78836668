"""Reads a stream of the API as many browsers do, until its input ends: `python benchmarks/viewers.py URL KEY COUNT`.

It prints a line once all are there, and at the end, as JSON, how old the newest sample of each frame was when the first
viewer had it, in seconds. The others throw away what they read, so that they cost as little as can be.
"""

import http.client
import json
import selectors
import socket
import sys
import threading
import time
from urllib.parse import urlsplit


def watch(url: str, key: str, lags: list[float]) -> None:
    """The first viewer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", f"{parts.path}?{parts.query}", headers={"X-API-Key": key})
    for line in connection.getresponse():
        if line.startswith(b'data: {"time_ms"'):  # a frame
            lags.append(time.time() - max(json.loads(line[6:])["seen_ms"]) / 1e3)  # noqa: PERF401 (read while it goes on)


def main() -> None:
    url, key, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    parts = urlsplit(url)
    request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nX-API-Key: {key}\r\n\r\n".encode()
    lags: list[float] = []
    threading.Thread(target=watch, args=(url, key, lags), daemon=True).start()
    waiting = count - 1
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        for _ in range(waiting):
            viewer = socket.create_connection((parts.hostname, parts.port))
            viewer.sendall(request)
            selector.register(viewer, selectors.EVENT_READ, data=[])
        buffer = memoryview(bytearray(1 << 20))
        while True:
            for ready, _ in selector.select():
                if ready.fileobj is sys.stdin:
                    print(json.dumps(lags))
                    return
                assert isinstance(ready.fileobj, socket.socket)
                if not ready.fileobj.recv_into(buffer):
                    raise SystemExit("a stream ended")
                if not ready.data:
                    ready.data.append(True)
                    waiting -= 1
                    if not waiting:
                        print("there", flush=True)


if __name__ == "__main__":
    main()
