"""One table for all codes: whatever a process of ours can raise has a class and a gRPC status."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import grpc

import telemetry_broker
import telemetry_services
from telemetry_broker import _core
from telemetry_broker.errors import BrokerError
from telemetry_services.codes import CODES, status_of


def classes(of: type[BrokerError] = BrokerError) -> Iterator[type[BrokerError]]:
    """Every error class of library and services."""
    for package in (telemetry_broker, telemetry_services):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "__main__" not in module.name:
                importlib.import_module(module.name)
    yield of
    for child in of.__subclasses__():
        yield from classes(child)


def written_codes() -> Iterator[tuple[str, str]]:
    """Every code that a source names as `code="..."`, with the file."""
    for package in (telemetry_broker, telemetry_services):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                    yield str(node.value.value), path.name


def test_every_code_of_library_and_services_is_in_the_table() -> None:
    codes = dict(written_codes())
    codes |= dict.fromkeys(_core.error_codes(), "the core")
    codes |= {kind.default_code: kind.__name__ for kind in classes()}
    assert len(codes) > 40
    assert {code: place for code, place in codes.items() if code not in CODES} == {}
    assert set(CODES) == set(codes), "codes that nothing raises"


def test_a_code_has_the_class_that_raises_it() -> None:
    for kind in classes():
        assert issubclass(kind, CODES[kind.default_code].error), kind


def test_a_code_that_is_not_known_is_internal() -> None:
    assert status_of("port.in_use") == grpc.StatusCode.FAILED_PRECONDITION
    assert status_of("of.tomorrow") == grpc.StatusCode.INTERNAL
