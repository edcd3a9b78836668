"""Records as an asynchronous consumer gets them."""

from __future__ import annotations

from collections.abc import Iterable

from telemetry_broker import _core
from telemetry_broker.aio.transport import Caller, run
from telemetry_broker.batch import Leased
from telemetry_broker.leases import Lease, LeaseBook
from telemetry_broker.positions import milliseconds


class Batch(Leased):
    """One delivery: records of one partition under one lease, or none at all. ``telemetry_broker.Batch``, awaited.

    Until the visibility timeout ends, no other consumer of the group gets these records. Ack what was handled; what is
    not acked by then is given out again. With ``offsets``, ack and nack mean these records only; without, all of the
    batch but what was given back before: nack what failed, then ack the rest.
    """

    def __init__(self, delivery: _core.Delivery, lease: Lease, leases: LeaseBook, caller: Caller) -> None:
        super().__init__(delivery, lease)
        self._leases = leases
        self._caller = caller

    @property
    def group(self) -> str:
        """The group that has the lease."""
        return self._leases.group

    async def ack(self, offsets: Iterable[int] | None = None) -> int:
        """Marks records as handled: the group never gets them again, also after a restart of the broker.

        Repeating it is fine, also after a cancelled one, and so is coming late, as long as nobody else was given the
        records meanwhile. In an ordered group it acks everything up to the highest offset.

        Returns:
            How many records were not acked before.

        Raises:
            StaleLeaseError: some were given to another consumer since, and are named; the others are acked.
        """
        return await run(self._leases.ack([self.part(offsets)]), self._caller)

    async def nack(
        self,
        delay: float = 0.0,
        offsets: Iterable[int] | None = None,
        *,
        dead_letter: bool = False,
        reason: str = "",
    ) -> int:
        """Gives records back.

        Args:
            delay: seconds until they may be given out again, at most 12 h; 0: at once.
            offsets: which; None: all. In an ordered group, the lowest is where the group goes on.
            dead_letter: send them to the dead-letter topic instead, for good.
            reason: why, for whoever looks there; at most 4,096 bytes.

        Returns:
            How many records were given back.

        Raises:
            StaleLeaseError: some were given to another consumer since, and are named; the others are given back.
        """
        steps = self._leases.nack(
            [self.part(offsets)],
            delay_ms=milliseconds("nack's delay", delay),
            dead_letter=dead_letter,
            reason=reason,
        )
        return await run(steps, self._caller)

    async def extend(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the lease's, not the call's
        """Starts the visibility timeout anew, from now on.

        Args:
            timeout: its new length in seconds, at most 12 h; None: the length it has.

        Raises:
            StaleLeaseError: the lease had ended.
        """
        await run(self._leases.extend([self._lease], self._timeout_ms(timeout)), self._caller)
