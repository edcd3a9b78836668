"""An asynchronous producer's way to a remote broker: one ProduceStream, with answers in the order of the requests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from telemetry_broker import _core
from telemetry_broker.aio.alarm import Alarm
from telemetry_broker.errors import BrokerError, TimedOutError, UnavailableError
from telemetry_broker.stream_messages import answer_of, ended_error, in_stream
from telemetry_broker.transport import Request, UnansweredError

if TYPE_CHECKING:
    from telemetry_broker.aio.remote import RemoteTransport

_METHOD: Final = "ProduceStream"


class ProduceStream:
    """The requests of one producer. Used on one event loop.

    The stream begins with a first request, and anew with the next one behind every break. What it had not answered then
    is answered with the error that ended it.
    """

    def __init__(self, transport: RemoteTransport) -> None:
        self._transport = transport
        self._stream: _Stream | None = None

    async def produce(self, request: Request, topic: str, timeout: float) -> bytes | BrokerError:  # noqa: ARG002, ASYNC109
        """See Producing."""
        try:
            if self._stream is None or self._stream.ended:
                self._stream = _Stream(self._transport)
        except BrokerError as error:
            return error
        return await self._stream.ask(request, timeout)

    def close(self) -> None:
        """See Producing."""
        if self._stream is not None:
            self._stream.finish()


class _Sent(NamedTuple):
    """One request."""

    answer: asyncio.Future[bytes | BrokerError]
    timeout: float
    deadline: float


class _Stream:
    """One call. What comes is taken as the event loop hears of it, by no task."""

    def __init__(self, transport: RemoteTransport) -> None:
        self.ended = False
        self._transport = transport
        self._unanswered: deque[_Sent] = deque()
        self._alarm = Alarm(self._look_for_late)
        self._exchange = transport.exchange(_METHOD, self._came)

    async def ask(self, request: Request, timeout: float) -> bytes | BrokerError:  # noqa: ASYNC109
        """Sends a request and waits for its answer, whose place is kept when the caller is cancelled."""
        sent = _Sent(asyncio.get_running_loop().create_future(), timeout, time.monotonic() + timeout)
        self._exchange.send(in_stream(request), self._unanswered, sent)
        self._alarm.by(sent.deadline)
        return await sent.answer

    def finish(self) -> None:
        """Sends no more; what is on its way is still answered."""
        self._exchange.finish()

    def _look_for_late(self) -> None:
        """Ends the stream where something is late: an answer behind the time would be taken for the next one's."""
        waiting = [sent for sent in self._unanswered if not sent.answer.done()]  # else nobody waits any more
        if not waiting:
            return
        first = min(waiting, key=lambda sent: sent.deadline)
        if first.deadline > time.monotonic():
            self._alarm.by(first.deadline)
            return
        late = TimedOutError(f"{self._transport.url} did not answer Produce within {first.timeout:g} s")
        self._end(UnansweredError(late))

    def _came(self) -> None:
        if self.ended:
            return
        try:
            messages = self._exchange.drain()
            if messages is None:
                self._end(UnansweredError(ended_error(self._transport.url)))
                return
            for message in messages:
                answer = self._unanswered.popleft().answer
                if not answer.done():
                    answer.set_result(answer_of(message))
        except _core.CallError as error:
            self._end(self._transport.broker_error(_METHOD, error, maybe_done=True))
        except IndexError:
            self._end(UnansweredError(UnavailableError(f"{self._transport.url} answered what nobody had asked")))

    def _end(self, error: BrokerError) -> None:
        self.ended = True
        self._alarm.cancel()
        self._transport.forget(self._exchange)
        while self._unanswered:
            answer = self._unanswered.popleft().answer
            if not answer.done():
                answer.set_result(error)
