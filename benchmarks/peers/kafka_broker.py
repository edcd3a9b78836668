"""Kafka: one node, broker and controller (KRaft), driven by confluent-kafka with batches as large as they help."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING
from uuid import uuid4

from benchmarks.load import Arrivals, Load
from benchmarks.peers.measure import Peer
from benchmarks.peers.server import Running, Server
from benchmarks.processes import HOST, free_port, started
from benchmarks.results import ROOT

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer

JARS = ROOT / "target/benchmarks/kafka"
POM = Path(__file__).with_name("kafka-pom.xml")
PARTITIONS = 4
BATCH = 1000
JVM = ("-server", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-Djava.awt.headless=true")
"""Those of Kafka's own start script."""
CONFIG = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
"""
Settings = dict[str, str | int | float | bool]
LOG_LEVEL = 2
"""Critical: librdkafka tells of a connection that a server closed, and what is lost here is told all the same."""
FAST_PRODUCER: Settings = {
    "acks": 1,
    "enable.idempotence": False,
    "linger.ms": 5,
    "batch.size": 1 << 20,
    "queue.buffering.max.messages": 1_000_000,
    "compression.type": "none",
    "log_level": LOG_LEVEL,
}
FAST_CONSUMER: Settings = {
    "group.id": "bench",
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "fetch.wait.max.ms": 100,
    "fetch.queue.backoff.ms": 1,  # else it pauses for a second when it is ahead of the program
    "queued.max.messages.kbytes": 1 << 18,
    "log_level": LOG_LEVEL,
}
QUICK_PRODUCER = FAST_PRODUCER | {"linger.ms": 0.5}  # 0 is no faster: the server has more requests to answer
QUICK_CONSUMER = FAST_CONSUMER | {"enable.auto.commit": True, "auto.commit.interval.ms": 100}
"""A commit a record is more than the server keeps up with."""


def missing() -> str:
    """Also brings the jars, the first time, which takes some seconds."""
    if find_spec("confluent_kafka") is None:
        return "`pip install --group bench` brings confluent-kafka"
    if which("java") is None or (not any(JARS.glob("kafka_*.jar")) and which("mvn") is None):
        return "`apt-get install -y default-jre-headless maven` brings what runs it and fetches its jars"
    if any(JARS.glob("kafka_*.jar")):
        return ""
    print(f"fetching Kafka's jars into {JARS} ...", file=sys.stderr, flush=True)
    command = ["mvn", "--quiet", "--batch-mode", "--file", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={JARS}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"Maven could not fetch its jars: {done.stdout[-1000:]}"


@contextmanager
def start(folder: Path) -> Iterator[Running]:
    port, controller_port = free_port(), free_port()
    config = folder / "kafka.properties"
    config.write_text(
        CONFIG.format(host=HOST, port=port, controller_port=controller_port, data=folder / "data"), encoding="utf-8"
    )
    java = ["java", *JVM, "-cp", f"{JARS}/*"]
    format_data = [*java, "kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", "x" * 22]
    subprocess.run([*format_data, "--config", str(config)], check=True, capture_output=True)
    address = f"{HOST}:{port}"
    with started("kafka", [*java, "kafka.Kafka", str(config)], port, folder):
        yield Running(
            open_queue=lambda name: open_queue(address, Path(name).name),
            latencies=lambda load: latencies(address, load),
        )


def make_topic(address: str) -> str:
    from confluent_kafka.admin import AdminClient  # of the group "bench", which need not be installed
    from confluent_kafka.cimpl import NewTopic

    name = f"bench-{uuid4()}"
    admin = AdminClient({"bootstrap.servers": address, "log_level": LOG_LEVEL})
    admin.create_topics([NewTopic(name, num_partitions=PARTITIONS, replication_factor=1)])[name].result(30)
    return name


def open_consumer(address: str, topic: str, settings: Settings) -> "Consumer":
    """With its partitions assigned, so that nobody waits for a group to form."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(settings | {"bootstrap.servers": address})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    return consumer


def open_producer(address: str, settings: Settings) -> "Producer":
    from confluent_kafka import Producer

    return Producer(settings | {"bootstrap.servers": address})


def open_queue(address: str, _name: str) -> Peer:
    topic = make_topic(address)
    producer = open_producer(address, FAST_PRODUCER)
    failures: list[str] = []

    def produce(values: list[bytes]) -> None:
        for number, start in enumerate(range(0, len(values), BATCH)):
            batch = [{"value": value} for value in values[start : start + BATCH]]
            producer.produce_batch(topic, batch, partition=number % PARTITIONS)
            failures.extend(str(message["_error"]) for message in batch if "_error" in message)
            producer.poll(0)
        if producer.flush(60) or failures:
            raise SystemExit(f"Kafka: not all was stored: {failures[:3]}")

    def consume(records: int) -> Iterator[bytes]:
        consumer = open_consumer(address, topic, FAST_CONSUMER)
        seen = 0
        while seen < records:
            messages = consumer.consume(BATCH, timeout=10)
            seen += len(messages)
            values = [value for message in messages if (value := message.value()) is not None]
            if not values:
                break
            yield from values
            consumer.commit(asynchronous=True)
        consumer.close()

    def close() -> None:
        producer.close()

    return Peer(produce, consume, close)


def latencies(address: str, load: Load) -> Arrivals:
    topic = make_topic(address)
    producer = open_producer(address, QUICK_PRODUCER)
    consumer = open_consumer(address, topic, QUICK_CONSUMER)
    arrivals = load.arrivals()

    def take() -> None:
        while not arrivals.complete:
            message = consumer.poll(30)
            value = message.value() if message is not None else None
            if value is None:
                return
            arrivals.take(value)

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    for value in load.paced():
        producer.produce(topic, value)
        producer.poll(0)
    producer.flush(30)
    taker.join(60)
    consumer.close()
    producer.close()
    return arrivals


KAFKA = Server(
    name="Kafka",
    missing=missing,
    started=start,
    client=f"confluent-kafka, produce_batch of {BATCH:,} to the partitions in turn, linger 5 ms, "
    "batch.size 1 MiB, acks=1, no idempotence; "
    f"consume of {BATCH:,}, one commit for all of them",
    latency_client="confluent-kafka, produce with linger 0.5 ms, poll in a thread, commits each 100 ms",
    durability="page cache",
    most_records=1_000_000,
    times=2,
)
