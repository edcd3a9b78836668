from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.contract.engines import BrokerProcess, Engine, FileEngine, GrpcEngine, MemoryEngine


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """The server behind every ``grpc`` engine."""
    server = BrokerProcess(tmp_path_factory.mktemp("broker"))
    yield server
    server.end()


@pytest.fixture(params=["mem", "file", "grpc"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Each broker that the contract holds for."""
    engine: Engine
    match request.param:
        case "mem":
            engine = MemoryEngine()
        case "file":
            engine = FileEngine(tmp_path / "data")
        case _:
            engine = GrpcEngine(request.getfixturevalue("shared_server"))
    yield engine
    engine.close()


@pytest.fixture
def broker(engine: Engine) -> tb.Broker:
    """A connection to it."""
    return engine.broker
