"""What all sources together make of a service's settings: each value with its origin, or everything that is wrong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from telemetry_services.config.models import ServiceSettings
from telemetry_services.config.settings import Setting, describe
from telemetry_services.config.sources import Given, Source
from telemetry_services.errors import ConfigError

S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Effective:
    """The value of one setting, as it may be shown to anyone, and where it came from.

    Attributes:
        value: masked where it is a secret; None where nothing is set and there is no default.
        place: where exactly: ``--port``, ``PORT``, ``port in telemetry.toml``; empty for a default.
    """

    setting: Setting
    value: bool | int | float | str | None
    source: Source
    place: str


@dataclass(frozen=True, slots=True)
class Resolution(Generic[S]):
    """The settings of one service, from all sources.

    Attributes:
        settings: None where a value is wrong; for use only through `checked`.
        given: what won for each setting that is not left at its default.
        problems: everything that keeps the service from starting.
        warnings: what it starts with, but somebody should look at.
    """

    model: type[S]
    settings: S | None
    given: Mapping[str, Given] = field(repr=False)
    problems: tuple[ConfigError, ...]
    warnings: tuple[str, ...]

    def checked(self) -> S:
        """The settings to start with.

        Raises:
            ConfigError: there are problems; its text tells them all, its code is that of the first.
        """
        if self.settings is not None and not self.problems:
            return self.settings
        raise ConfigError("; ".join(problem.message for problem in self.problems), code=self.problems[0].code)

    def effective(self) -> Iterator[Effective]:
        """Every setting of the service; a value as it was given where not all of them are right."""
        for setting in describe(self.model):
            given = self.given.get(setting.name) or Given(Source.DEFAULT, "", _default(self.model, setting.name))
            value = given.value if self.settings is None else getattr(self.settings, setting.name)
            yield Effective(setting, setting.shown(value), given.source, given.place)


def _default(model: type[ServiceSettings], name: str) -> object:
    return model.model_fields[name].get_default(call_default_factory=True, validated_data={})
