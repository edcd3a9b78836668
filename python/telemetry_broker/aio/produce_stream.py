"""An asynchronous producer's way to a remote broker: one ProduceStream, with answers in the order of the requests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import grpc

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
        stream = self._stream
        try:
            async with asyncio.timeout(timeout):
                return await stream.ask(request)
        except TimeoutError:
            # An answer behind the time would be taken for the next one's.
            late = TimedOutError(f"{self._transport.url} did not answer Produce within {timeout:g} s")
            stream.cancel(late)
            return UnansweredError(late)

    def close(self) -> None:
        """See Producing."""
        if self._stream is not None:
            self._stream.finish()


class _Stream:
    """One call, read by a task."""

    def __init__(self, transport: RemoteTransport) -> None:
        self.ended = False
        self._transport = transport
        self._requests: asyncio.Queue[Request | None] = asyncio.Queue()
        self._unanswered: deque[asyncio.Future[bytes | BrokerError]] = deque()
        self._cancelled: BrokerError | None = None
        self._call = transport.stream(_METHOD, self._sent())
        self._reader = asyncio.get_running_loop().create_task(self._run())

    async def ask(self, request: Request) -> bytes | BrokerError:
        """Sends a request and waits for its answer, whose place is kept when the caller is cancelled."""
        answer: asyncio.Future[bytes | BrokerError] = asyncio.get_running_loop().create_future()
        self._unanswered.append(answer)
        self._requests.put_nowait(request)
        return await answer

    def finish(self) -> None:
        """Sends no more; what is on its way is still answered."""
        self._requests.put_nowait(None)

    def cancel(self, error: BrokerError) -> None:
        """Ends it with this error."""
        self.ended = True
        self._cancelled = self._cancelled or error
        self._call.cancel()

    async def _sent(self) -> AsyncIterator[bytes]:
        while (request := await self._requests.get()) is not None:
            yield in_stream(request)

    async def _run(self) -> None:
        error: BrokerError = UnansweredError(ended_error(self._transport.url))
        try:
            async for message in self._call:
                answer = self._unanswered.popleft()
                if not answer.done():  # else nobody waits any more
                    answer.set_result(answer_of(message))
        except grpc.RpcError as caught:
            error = self._transport.produce_error(_METHOD, caught)
        except IndexError:
            error = UnansweredError(UnavailableError(f"{self._transport.url} answered what nobody had asked"))
        except (asyncio.CancelledError, grpc.aio.UsageError):
            # A channel that closes cancels its calls, and so does a timeout; an event loop that ends cancels the task.
            error = UnansweredError(self._transport.refused() or ended_error(self._transport.url))
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        finally:
            self._end(error)

    def _end(self, error: BrokerError) -> None:
        self.ended = True
        if self._cancelled is not None:
            error = UnansweredError(self._cancelled)
        self.finish()  # ends the task that sends for gRPC
        for answer in self._unanswered:
            if not answer.done():
                answer.set_result(error)
        self._unanswered.clear()
