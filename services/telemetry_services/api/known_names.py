"""How the store spells its columns: a point that spells one otherwise is refused before it is accepted."""

import logging
import threading
from collections.abc import Iterable
from typing import Final

from telemetry_broker.errors import InvalidArgumentError
from telemetry_services.store import Store, StoreError

log = logging.getLogger(__name__)

METRIC: Final = "metric"
TAG: Final = "tag"


class KnownNames:
    """The names of a store's metrics and tags; it is asked again only about a name that is new. Blocks; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, str]] = {}

    def check(self, names: Iterable[tuple[str, str]]) -> None:
        """Checks names, each with its kind, `METRIC` or `TAG`.

        Raises:
            InvalidArgumentError: one is stored as the other kind, or differs from a stored one only in case.
        """
        wanted = set(names)
        with self._lock:
            if any(name.lower() not in self._known for _, name in wanted):
                self._refresh()
            for kind, name in sorted(wanted):
                known = self._known.get(name.lower(), (kind, name))
                if known != (kind, name):
                    raise InvalidArgumentError(
                        f"the {kind} {name!r} cannot be stored: it is known as the {known[0]} {known[1]!r}; "
                        "send it so, or rename it"
                    )

    def _refresh(self) -> None:
        try:
            tags, metrics = self._store.tags(), self._store.metrics()
        except StoreError as error:
            log.info("the store's names cannot be read, the collector will check them: %s", error)
            return
        self._known = {name.lower(): (TAG, name) for name in tags} | {name.lower(): (METRIC, name) for name in metrics}
