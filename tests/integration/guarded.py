"""Brokers that ask who comes: token files, and clients that show one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from tests.integration.service_processes import BrokerProcess, Service

ROLES = ("produce", "consume", "admin")
RELOADED = "Reloaded the tokens"


@dataclass(frozen=True)
class Client:
    """A client of a token file; its token is made from its name."""

    name: str
    produce: Sequence[str] = ()
    consume: Sequence[str] = ()
    admin: Sequence[str] = ()
    expires: str = ""
    """As TOML; empty: never."""
    generation: int = 1
    """Of its token."""

    @classmethod
    def of_role(cls, name: str, role: str, *topics: str) -> Client:
        """A client with one role."""
        roles = {each: topics if each == role else () for each in ROLES}
        return cls(name, roles["produce"], roles["consume"], roles["admin"])

    @property
    def token(self) -> str:
        return f"{self.name}-token-of-generation-{self.generation}"

    @property
    def entry(self) -> str:
        """Its table in a token file."""
        roles = "\n".join(f"{role} = {list(getattr(self, role))}" for role in ROLES)
        expires = f"expires = {self.expires}\n" if self.expires else ""
        digest = hashlib.sha256(self.token.encode()).hexdigest()
        return f'[[token]]\nclient = "{self.name}"\nsha256 = "{digest}"\n{roles}\n{expires}'


ROOT = Client("root", ["*"], ["*"], ["*"])


def write_tokens(path: Path, *clients: Client) -> Path:
    """Puts a token file in place, in one step as tools that look after secrets do."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text("\n".join(client.entry for client in clients))
    return fresh.replace(path)


def change_tokens(service: Service, path: Path, *clients: Client) -> None:
    """The same, and waits until the service has taken it up."""
    before = service.output.count(RELOADED)
    write_tokens(path, *clients)
    service.wait_until(lambda output: output.count(RELOADED) > before)


@contextmanager
def guarded_broker(folder: Path, *clients: Client, arguments: Sequence[object] = ()) -> Iterator[BrokerProcess]:
    """A broker that knows these clients, by ``folder/tokens.toml``."""
    tokens = write_tokens(folder / "tokens.toml", *clients)
    with BrokerProcess(folder / "data", "--tokens-file", tokens, *arguments) as process:
        yield process


def shown(token: str | None) -> tuple[tuple[str, str | bytes], ...]:
    """A call's metadata with a token."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


def status_of_call(channel: grpc.Channel, path: str, request: bytes, token: str | None) -> grpc.StatusCode:
    """How a call ends; a stream is sent one message, and no more than its first answer is taken."""
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
    answers = call(iter([request]), metadata=shown(token), timeout=10)
    try:
        next(answers, None)
    except grpc.RpcError:
        pass
    else:
        answers.cancel()
        return grpc.StatusCode.OK
    return answers.code()
