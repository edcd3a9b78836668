"""Environment variables that nobody reads although somebody seems to have meant one of ours."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

from telemetry_services.config.settings import Setting

_SHORTEST: Final = 8
"""Characters of a name that is compared; a slip away from HOST or PORT are too many names that others use."""


def near_misses(environment: Mapping[str, str], settings: Collection[Setting], known: Iterable[str]) -> list[str]:
    """A sentence for each variable that is one slip away from a setting's, or that names a file nobody opens.

    The environment is full of names of others, so only what can hardly be one of those is told.

    Args:
        settings: of all services.
        known: other variables that are read or answered.
    """
    read = {name for setting in settings for name in (setting.variable, setting.file_variable)} | set(known)
    return list(_sentences(sorted(name for name, value in environment.items() if value), settings, read))


def _sentences(names: Iterable[str], settings: Collection[Setting], read: Collection[str]) -> Iterator[str]:
    plain = {setting.variable for setting in settings if not setting.is_secret}
    ours = sorted(name for name in read if len(name) >= _SHORTEST)
    for name in names:
        upper = name.upper()
        if upper in read:
            continue
        value = upper.removesuffix("_FILE")
        if value != upper and value in plain and len(value) >= _SHORTEST:
            yield f"{name} is set, and nothing reads it: only secrets are taken from files; set {value}"
        elif near := min((each for each in ours if _is_one_slip(upper, each)), key=_slip_from(upper), default=None):
            yield f"{name} is set, and nothing reads it: did you mean {near}?"


def _slip_from(given: str) -> Callable[[str], tuple[bool, str]]:
    """Sorts names: first those that differ in nothing but separators."""
    return lambda meant: (given.replace("-", "").replace("_", "") != meant.replace("_", ""), meant)


def _is_one_slip(given: str, meant: str) -> bool:
    """Whether one letter was left out, added, changed, or swapped with the next; separators do not count."""
    left, right = given.replace("-", "").replace("_", ""), meant.replace("_", "")
    start = next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    left, right = left[start:], right[start:]
    while left and right and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    return max(len(left), len(right)) <= 1 or (len(left) == 2 and left == right[::-1])
