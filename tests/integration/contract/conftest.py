from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry_broker as tb
from tests.integration.contract.engines import Engine, FileEngine, GrpcEngine, MemoryEngine


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
            engine = GrpcEngine(tmp_path / "data")
    yield engine
    engine.close()


@pytest.fixture
def broker(engine: Engine) -> tb.Broker:
    """A connection to it."""
    return engine.broker
