"""The broker for asyncio programs: ``telemetry_broker`` with the same words, and ``await``.

    from telemetry_broker import aio

    async with aio.connect("file:///var/lib/telemetry") as broker:
        await broker.create_topic("telemetry", partitions=4)
        async with broker.producer("telemetry") as producer:
            await producer.send(b"...", key=b"GPU-1")
        async with broker.consumer("telemetry", group="collector", idle_timeout=1) as consumer:
            async for batch in consumer:
                print(batch.values)
                await batch.ack()

Everything runs on the event loop on which ``connect`` was awaited, and is refused on another one and after a fork. No
call takes a thread, but those to a broker in this process that wait for its disk. A wait for records is woken by the
broker, it does not poll: a thousand consumers that wait cost nothing.

Cancelling is safe everywhere: a cancelled ``receive`` loses no records, a cancelled ``send`` has not added its record,
a cancelled ``flush`` leaves its records on their way.

Values, errors and positions are those of ``telemetry_broker``.
"""

from telemetry_broker.aio.batch import Batch
from telemetry_broker.aio.broker import Broker
from telemetry_broker.aio.connection import connect
from telemetry_broker.aio.consumer import Consumer
from telemetry_broker.aio.producer import Producer

__all__ = ["Batch", "Broker", "Consumer", "Producer", "connect"]
