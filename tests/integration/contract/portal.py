"""The asynchronous face behind synchronous calls, so that one suite holds both faces to the same promises."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self, cast

import telemetry_broker as tb
from telemetry_broker import aio

Connect = Callable[..., tb.Broker]
"""``tb.connect``, or what looks like it."""

_END = object()


class Portal:
    """One event loop in a thread, on which everything asynchronous lives."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="portal", daemon=True)
        self._thread.start()
        self._pid = os.getpid()

    def connect(self, url: str, **options: Any) -> tb.Broker:
        """``aio.connect``, with a broker that looks synchronous."""
        return cast("tb.Broker", self.face(self.run(lambda: aio.connect(url, **options))))

    def run(self, work: Callable[[], Any]) -> Any:
        """Runs work on the loop and waits for what it awaits."""
        if os.getpid() != self._pid:
            return _step(_finish(work))
        future = asyncio.run_coroutine_threadsafe(_finish(work), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def face(self, value: Any) -> Any:
        """What is asynchronous gets a face."""
        return Face(self, value) if type(value).__module__.startswith("telemetry_broker.aio") else value

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Face:
    """An asynchronous object that looks like its synchronous twin."""

    def __init__(self, portal: Portal, target: Any) -> None:
        self._face_portal = portal
        self._face_target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._face_target, name)
        if not inspect.ismethod(value):
            return self._face_portal.face(value)

        def call(*args: Any, **options: Any) -> Any:
            return self._face_portal.face(self._face_portal.run(lambda: value(*map(_bare, args), **options)))

        return call

    def __enter__(self) -> Self:
        self._face_portal.run(self._face_target.__aenter__)
        return self

    def __exit__(self, *error: object) -> None:
        self._face_portal.run(lambda: self._face_target.__aexit__(*error))

    def __iter__(self) -> Iterator[Any]:
        iterator = aiter(self._face_target)
        # Not a generator, which would hold on to what it gave last.
        return iter(lambda: self._face_portal.face(self._face_portal.run(lambda: anext(iterator, _END))), _END)

    def __len__(self) -> int:
        return len(self._face_target)

    def __bool__(self) -> bool:
        return bool(self._face_target)

    def __repr__(self) -> str:
        return repr(self._face_target)


def _bare(value: Any) -> Any:
    if isinstance(value, Face):
        return value._face_target
    return [_bare(each) for each in value] if isinstance(value, list) else value


def _step(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs work in the child of a fork, where the thread is not: everything there answers or refuses without a wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits, in the child of a fork")


async def _finish(work: Callable[[], Any]) -> Any:
    result = work()
    return await result if inspect.isawaitable(result) else result
