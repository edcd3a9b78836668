"""What every test may rely on: Hypothesis profiles, and tools that a machine may lack."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from telemetry_broker import tracing

# fast: a new small sample at every run. ci: ten times that, the same at every run, so that a gate is reproducible.
settings.register_profile("fast", max_examples=30, deadline=None)
settings.register_profile(
    "ci",
    max_examples=300,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "fast"))


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans that ended, as a program gets them that has configured OpenTelemetry; not for all of the process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("telemetry_broker"))
    return exporter


def require_tool(name: str, install_hint: str) -> str:
    """Return the path of the program `name`; without it skip the test, or fail it under STRICT=1.

    Args:
        name: the program, as a shell would look it up.
        install_hint: the line that installs it, for example `apt-get install -y strace`.
    """
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"needs {name}: {install_hint}"
    if os.environ.get("STRICT") == "1":
        pytest.fail(f"STRICT=1: {reason}", pytrace=False)
    pytest.skip(reason)
