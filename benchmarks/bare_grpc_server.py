"""A grpc.aio server that does nothing but move bytes: `python benchmarks/bare_grpc_server.py PORT`, on loopback.

With the kind of server and the bound on messages that `telemetry broker` has, so that what is left between its figures
and these is the broker.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

SERVICE = "bare.Bare"
MESSAGE_BYTES = 1 << 20
OPTIONS = (("grpc.max_send_message_length", 16 << 20), ("grpc.max_receive_message_length", 16 << 20))

Context = grpc.aio.ServicerContext[Any, Any]

_MESSAGE = bytes(MESSAGE_BYTES)


async def answer(request: bytes, context: Context) -> bytes:  # noqa: ARG001
    """An empty answer, whatever comes."""
    return b""


async def take(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:  # noqa: ARG001
    """An empty message for each that comes."""
    async for _ in requests:
        yield b""


async def give(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:  # noqa: ARG001
    """A message of MESSAGE_BYTES for each that comes."""
    async for _ in requests:
        yield _MESSAGE


async def serve(port: int) -> None:
    server = grpc.aio.server(options=OPTIONS)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Answer": grpc.unary_unary_rpc_method_handler(answer),
        "Take": grpc.stream_stream_rpc_method_handler(take),
        "Give": grpc.stream_stream_rpc_method_handler(give),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
