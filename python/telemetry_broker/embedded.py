"""The broker in this process, behind ``file://`` and ``mem://``."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from telemetry_broker import _core
from telemetry_broker.errors import BrokerError, ClosedError, UnavailableError, UnsupportedError
from telemetry_broker.transport import Done, Request, Stream, UnansweredError
from telemetry_broker.v1 import broker_pb2 as pb


class EmbeddedTransport:
    """Drives ``_core.Broker``. A wait sleeps on a file descriptor that the core signals; nothing polls."""

    prefetches: Final = False  # a call costs microseconds, and a record taken early is a record withheld from others

    def __init__(self, url: str, core: _core.Broker, release: Callable[[bool], None]) -> None:
        """``release`` lets go of the core and is told whether to flush; one core may serve several connections."""
        self.url = url
        self._core = core
        self._release = release
        self._closed = False

    def call(self, method: str, request: Request) -> bytes:
        """See Transport."""
        self._refuse_closed()
        answer = self._core.call(method, request)
        if method == "Read" and not _core.Delivery.parse(answer):
            asked = pb.ReadRequest.FromString(bytes(request))
            if asked.wait_ms:
                answer = self._read_after_wait(asked, request)
        return answer

    def _read_after_wait(self, asked: pb.ReadRequest, request: Request) -> bytes:
        end = time.monotonic() + asked.wait_ms / 1000
        subscription = self._core.subscribe(asked.topic)
        try:
            poll = select.poll()
            poll.register(subscription.fileno(), select.POLLIN)
            while True:
                subscription.drain()  # first drain, then look, then wait: what changes from here on ends the wait
                self._refuse_closed()
                answer = self._core.call("Read", request)
                left_ms = round((end - time.monotonic()) * 1000)
                if left_ms <= 0 or _core.Delivery.parse(answer):
                    return answer
                poll.poll(left_ms)
        finally:
            subscription.close()

    def producing(self) -> EmbeddedProducing:
        """See Transport."""
        return EmbeddedProducing(self)

    def consume(self) -> Stream:
        """See Transport."""
        raise UnsupportedError(f"{self.url} has no streams: its calls are no round trips")

    def receiver(self, topic: str) -> EmbeddedReceiver:
        """See Transport."""
        return EmbeddedReceiver(self._receive, self._core.subscribe, topic)

    def _receive(self, request: bytes) -> tuple[list[_core.Delivery], int]:
        self._refuse_closed()
        return self._core.receive(request)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.url} was closed; call connect() again")

    def close(self, *, flush: bool = True) -> None:
        """See Transport; ``flush=False`` leaves behind what kill -9 would, for tests of recovery."""
        if not self._closed:
            self._closed = True
            self._release(flush)


class EmbeddedProducing:
    """Calls the core, which answers by itself, without a timeout."""

    is_timed: Final = False

    def __init__(self, transport: EmbeddedTransport) -> None:
        self._transport = transport

    def start(self, request: Request, timeout: float, done: Done) -> None:  # noqa: ARG002
        """See Producing; ``done`` is called in this thread."""
        url = self._transport.url
        answer: bytes | BrokerError = UnansweredError(UnavailableError(f"{url}: the call was interrupted"))
        try:
            answer = self._transport.call("Produce", request)
        except BrokerError as error:
            answer = error
        finally:
            done(answer)  # also when Ctrl-C came between: the caller's books must not wait for ever

    def ask(self, request: Request, timeout: float) -> bytes | BrokerError:  # noqa: ARG002
        """See Producing."""
        try:
            return self._transport.call("Produce", request)
        except BrokerError as error:
            return error

    def overdue(self) -> None:
        """See Producing."""

    def close(self) -> None:
        """See Producing."""


class EmbeddedReceiver:
    """Waits on subscriptions of the core."""

    def __init__(
        self,
        receive: Callable[[bytes], tuple[list[_core.Delivery], int]],
        subscribe: Callable[[str], _core.Subscription],
        topic: str,
    ) -> None:
        self._look = receive
        self._subscribe = subscribe
        self._topic = topic
        self._lock = threading.Lock()
        # Each waiting thread needs a subscription of its own: draining one that two share would lose a wake-up.
        self._idle: list[_core.Subscription] = []
        self._waiting = 0
        self._closed = False
        self._closing = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def receive(self, request: bytes, wait: float | None) -> list[_core.Delivery]:
        """See Receiver."""
        if self._closed:
            return []
        deliveries, _ = self._look(request)
        if deliveries or wait == 0:
            return deliveries
        end = None if wait is None else time.monotonic() + wait
        with self._subscription() as subscription:
            if subscription is None:
                return []
            poll = select.poll()
            poll.register(subscription.fileno(), select.POLLIN)
            poll.register(self._closing, select.POLLIN)
            while not self._closed:
                subscription.drain()  # first drain, then look, then wait: what changes from here on ends the wait
                deliveries, due_ms = self._look(request)
                left_ms = None if end is None else max(0, round((end - time.monotonic()) * 1000))
                if deliveries or left_ms == 0:
                    return deliveries
                # 0: no lease and no delay will end.
                poll.poll(min((ms for ms in (left_ms, due_ms or None) if ms is not None), default=None))
        return []

    @contextmanager
    def _subscription(self) -> Iterator[_core.Subscription | None]:
        """A subscription for one wait, None once closed."""
        with self._lock:
            if self._closed:
                subscription = None
            else:
                subscription = self._idle.pop() if self._idle else self._subscribe(self._topic)
                self._waiting += 1
        if subscription is None:
            yield None
            return
        try:
            yield subscription
        finally:
            with self._lock:
                self._waiting -= 1
                if self._closed:
                    subscription.close()
                    self._close_descriptor()
                else:
                    self._idle.append(subscription)

    def close(self) -> None:
        """See Receiver."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.eventfd_write(self._closing, 1)
            for subscription in self._idle:
                subscription.close()
            self._idle.clear()
            self._close_descriptor()

    def _close_descriptor(self) -> None:
        """Closes the eventfd once nobody polls it. The lock is held."""
        if self._waiting == 0:
            os.close(self._closing)
