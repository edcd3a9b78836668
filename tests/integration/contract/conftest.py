from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.contract.engines import BrokerProcess, Engine, FileEngine, GrpcEngine, MemoryEngine
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


@pytest.fixture(params=["mem", "file", "grpc"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, connect: Connect) -> Iterator[Engine]:
    """Each broker that the contract holds for, behind each face."""
    engine: Engine
    match request.param:
        case "mem":
            engine = MemoryEngine(connect)
        case "file":
            engine = FileEngine(connect, tmp_path / "data")
        case _:
            engine = GrpcEngine(connect, request.getfixturevalue("shared_server"))
    yield engine
    engine.close()


@pytest.fixture
def broker(engine: Engine) -> tb.Broker:
    """A connection to it."""
    return engine.broker
