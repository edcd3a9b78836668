"""What unit tests share."""

import pytest

from telemetry_services.config import SERVICES, describe
from telemetry_services.config.loading import NOT_YET


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes every variable that a service reads or refuses out of the environment."""
    for variable in {setting.variable for service in SERVICES for setting in describe(service)} | NOT_YET.keys():
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(f"{variable}_FILE", raising=False)
