"""A grpc.aio proxy that does nothing but pass bytes on: `python benchmarks/bare_proxy.py PORT ADDRESS`, on loopback.

Every call, unary or not, is spliced as a stream of raw messages in both directions to one server.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

from benchmarks.bare_grpc_server import OPTIONS, Context


class Splice(grpc.GenericRpcHandler):
    """Answers each call with what a server answers."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(
            handler_call_details.method
        )

        async def splice(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            try:
                async for answer in call(requests, metadata=context.invocation_metadata()):
                    yield answer
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", error.trailing_metadata() or ())

        return grpc.stream_stream_rpc_method_handler(splice)


async def serve(port: int, address: str) -> None:
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((Splice(channel),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
