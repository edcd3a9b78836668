"""What a setting is: one field of a model, with variable, flag, unit, bounds and text in the field's metadata."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, Field, SecretStr
from pydantic.fields import FieldInfo

from telemetry_services.config.values import MASK, format_brokers, format_duration, format_topics, without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

KINDS: Final = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def setting(
    default: Any = ...,
    description: str = "",
    *,
    flag: str | None = None,
    unit: str = "",
    expected: str = "",
    bounds: tuple[float, float] | None = None,
    default_factory: "Callable[[], Any] | None" = None,
) -> Any:
    """Declares a field of a settings model.

    Args:
        flag: its command-line flag; default: the field's name in kebab case. The environment variable is always the
            field's name in upper case, the key in a TOML file always the field's name.
        unit: of the number, for people: ``rows/s``, ``bytes``; ``duration`` for a duration as Go writes it.
        expected: what a good value looks like, where type and bounds do not say it.
        bounds: the lowest and the highest number allowed, both inclusive; seconds for a duration.
    """
    low, high = bounds or (None, None)
    extra: dict[str, Any] = {"flag": flag, "unit": unit, "expected": expected}
    if default_factory is not None:
        return Field(default_factory=default_factory, description=description, json_schema_extra=extra)
    return Field(default, description=description, ge=low, le=high, json_schema_extra=extra)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a model, as the command line and the reference page show it."""

    name: str
    variable: str
    flag: str
    description: str
    expected: str
    default: str
    unit: str
    is_switch: bool
    is_secret: bool

    @property
    def file_variable(self) -> str:
        """The variable that names a file with the setting's value; empty where only the value itself can be given."""
        return f"{self.variable}_FILE" if self.is_secret else ""

    def shown(self, value: object) -> bool | int | float | str | None:
        """A value as it may be shown to anyone, in the form in which a variable or a TOML file takes it."""
        if value is None or (self.is_secret and not value):
            return None
        if self.is_secret:
            return MASK
        if isinstance(value, float) and self.unit == "duration":
            return format_duration(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, bool | int | float):
            return value
        if isinstance(value, tuple):
            return format_brokers(value) or None
        return format_topics(value) if isinstance(value, dict) else without_credentials(str(value))


def describe(model: type[BaseModel]) -> list[Setting]:
    """Every setting of a model: its own first, those that all services share last."""
    declared = {name: place for place, cls in enumerate(model.__mro__) for name in _declared_by(cls)}
    names = sorted(model.model_fields, key=lambda name: declared[name])
    return [_describe_field(name, model.model_fields[name]) for name in names]


def _declared_by(cls: type) -> "Iterable[str]":
    return inspect.get_annotations(cls)


def _describe_field(name: str, info: FieldInfo) -> Setting:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    kind = _kind(info)
    unit = str(extra.get("unit") or "")
    return Setting(
        name=name,
        variable=name.upper(),
        flag=str(extra.get("flag") or f"--{name.replace('_', '-')}"),
        description=info.description or "",
        expected=str(extra.get("expected") or "") or _expected(info, kind, unit),
        default=_default(info, unit),
        unit=unit,
        is_switch=kind is bool,
        is_secret=_holds_secrets(kind),
    )


def _kind(info: FieldInfo) -> Any:
    members = [member for member in get_args(info.annotation) if member is not NoneType]
    return members[0] if NoneType in get_args(info.annotation) and members else info.annotation


def _holds_secrets(kind: Any) -> bool:
    """Whether it is a secret, or a list or the like of secrets."""
    return kind is SecretStr or any(_holds_secrets(member) for member in get_args(kind))


def _expected(info: FieldInfo, kind: Any, unit: str) -> str:
    low = next((bound.ge for bound in info.metadata if hasattr(bound, "ge")), None)
    high = next((bound.le for bound in info.metadata if hasattr(bound, "le")), None)
    if unit == "duration":
        text = "a duration such as 30s, 1m30s or 500ms"
        return text if low is None or high is None else f"{text}, {format_duration(low)} to {format_duration(high)}"
    choices = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
    text = f"one of {', '.join(choices)}" if choices else KINDS.get(kind, "a text")
    if low is not None:
        text += f" from {low:,.15g} to {high:,.15g}"
    return f"{text} ({unit})" if unit else text


def _default(info: FieldInfo, unit: str) -> str:
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ({}, ()) or isinstance(value, SecretStr):
        return ""
    if unit == "duration":
        return format_duration(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
