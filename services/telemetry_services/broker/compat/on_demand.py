"""Topics and partitions that come into being with the first record for them."""

import asyncio
from typing import Final

from telemetry_broker import calls
from telemetry_broker.aio.transport import run
from telemetry_broker.errors import ConflictError, InvalidArgumentError, NotFoundError
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_services.broker.compat.upstream import Upstream

MAX_PARTITIONS_ON_DEMAND: Final = 64
"""Up to so many partitions a topic grows on demand. Each costs files and memory; ConfigureTopic makes more."""

MAX_TOPICS_ON_DEMAND: Final = 1_000
"""With so many topics in the broker, no more are made on demand."""

_TRIES: Final = 10


class TopicsOnDemand:
    """Makes and grows topics.

    Args:
        partitions: of a topic that is made, if the record's partition asks for no more.
    """

    def __init__(self, upstream: Upstream, partitions: int) -> None:
        self._upstream = upstream
        self._partitions = partitions
        self._making = asyncio.Lock()

    async def ensure(self, topic: str, partition: int | None) -> None:
        """Makes the topic, or adds partitions to it, so that it has this one.

        Raises:
            InvalidArgumentError: it would pass a bound.
            BrokerError: the name is not allowed, or the disk refuses.
        """
        async with self._making:
            for attempt in range(_TRIES):
                try:
                    await self._make_or_grow(topic, partition)
                except ConflictError:  # someone else did the like at the same time: look again
                    if attempt == _TRIES - 1:
                        raise
                else:
                    return

    async def _make_or_grow(self, topic: str, partition: int | None) -> None:
        wanted = 1 if partition is None else partition + 1
        try:
            request = pb.DescribeTopicRequest(name=topic).SerializeToString()
            there = pb.DescribeTopicResponse.FromString(await self._upstream.call("DescribeTopic", request)).topic
        except NotFoundError:
            self._check(topic, wanted, self._partitions, "would be made with")
            topics = await run(calls.topics(), self._upstream)
            if len(topics) >= MAX_TOPICS_ON_DEMAND:
                raise InvalidArgumentError(
                    f"there is no topic {topic!r}, and with {len(topics):,} topics no more are made on demand; "
                    "make it with CreateTopic, or delete some"
                ) from None
            config = pb.TopicConfig(partitions=max(wanted, self._partitions))
            create = pb.CreateTopicRequest(name=topic, config=config)
            await self._upstream.call("CreateTopic", create.SerializeToString())
            return
        if wanted > there.config.partitions:
            self._check(topic, wanted, there.config.partitions, "has")
            grow = pb.ConfigureTopicRequest(
                name=topic, config=pb.TopicConfig(partitions=wanted), if_version=there.config_version
            )
            await self._upstream.call("ConfigureTopic", grow.SerializeToString())

    def _check(self, topic: str, wanted: int, partitions: int, verb: str) -> None:
        if wanted > max(partitions, MAX_PARTITIONS_ON_DEMAND):
            raise InvalidArgumentError(
                f"partition is {wanted - 1}: topic {topic!r} {verb} {partitions} partitions and grows on demand up to "
                f"{MAX_PARTITIONS_ON_DEMAND}; name a lower one, or add partitions with ConfigureTopic"
            )
