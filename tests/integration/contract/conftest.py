from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.contract.engines import (
    BrokerProcess,
    Engine,
    FileEngine,
    GrpcEngine,
    MemoryEngine,
    SeveralBrokers,
    door,
)
from tests.integration.contract.portal import Connect, Portal


@pytest.fixture(scope="session")
def portal() -> Iterator[Portal]:
    """The event loop of the asynchronous face."""
    portal = Portal()
    yield portal
    portal.stop()


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Each face of the library, for tests that hold both to the same promises."""
    if request.param == "sync":
        return tb.connect
    portal: Portal = request.getfixturevalue("portal")
    return portal.connect


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """The server behind every ``grpc`` engine."""
    server = BrokerProcess(tmp_path_factory.mktemp("broker"))
    yield server
    server.end()


DOORS = {"token": "sync", "mtls": "async", "unix": "async", "cluster": "sync", "proxy": "async"}
"""Other ways to a server, and the face that takes each: what differs lies below both faces, in the core's channel."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out the other face of each door."""

    def is_wanted(item: pytest.Item) -> bool:
        parameters: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
        face = DOORS.get(str(parameters.get("engine")))
        return face is None or parameters.get("connect") == face

    items[:] = [item for item in items if is_wanted(item)]


@pytest.fixture(scope="session")
def guarded_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, BrokerProcess | SeveralBrokers]]:
    """The servers behind the engines of DOORS, each started when it is asked for first."""
    servers = _Servers(tmp_path_factory)
    yield servers
    for server in servers.values():
        server.end()


class _Servers(dict[str, BrokerProcess | SeveralBrokers]):
    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders

    def __missing__(self, kind: str) -> BrokerProcess | SeveralBrokers:
        folder = self._folders.mktemp(kind)
        if kind in ("cluster", "proxy"):
            several = self[kind] = SeveralBrokers(folder, proxy=kind == "proxy")
            return several
        server = self[kind] = BrokerProcess(folder / "data", door(kind, folder / "door"))
        return server


@pytest.fixture(params=["mem", "file", "grpc", *DOORS])
def engine(request: pytest.FixtureRequest, tmp_path: Path, connect: Connect) -> Iterator[Engine]:
    """Each broker that the contract holds for, behind each face."""
    engine: Engine
    match request.param:
        case "mem":
            engine = MemoryEngine(connect)
        case "file":
            engine = FileEngine(connect, tmp_path / "data")
        case "grpc":
            engine = GrpcEngine(connect, request.getfixturevalue("shared_server"))
        case kind:
            engine = GrpcEngine(connect, request.getfixturevalue("guarded_servers")[kind])
    yield engine
    engine.close()


@pytest.fixture
def broker(engine: Engine) -> tb.Broker:
    """A connection to it."""
    return engine.broker
