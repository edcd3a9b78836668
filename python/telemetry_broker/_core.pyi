"""The Rust core, as Python sees it. Private: use ``telemetry_broker``; this page is for those who work on it.

Requests and responses are the encoded messages of ``telemetry_broker/v1/broker.proto``, so an embedded broker and a
remote one are driven by the same bytes. Every call that can take longer than a few microseconds releases the GIL. Every
error is a ``telemetry_broker.BrokerError``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self, final

from typing_extensions import Buffer

__version__: str

def error_codes() -> list[str]:
    """Every code the core can raise; a test holds ``telemetry_broker.errors.CODES`` against it."""

def partition_for_key(key: Buffer, partitions: int) -> int:
    """XXH3-64 (seed 0) of the key modulo ``partitions`` (at least 1). Test vectors: docs/protocol.md."""

@final
class ManualClock:
    """A clock that only the test moves: wall time and deadlines alike. Shared by every broker it is given to."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000) -> None: ...
    def now(self) -> float:
        """Seconds since the epoch."""
    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
    def advance(self, seconds: float) -> None:
        """Moves the clock forward, and wakes every subscription of the brokers that use it."""

@final
class Subscription:
    """Wake-ups of one broker on a file descriptor: readable when records may have become ready since ``drain``.

    Drain first, then look for records, then wait: a change that comes after the drain makes the descriptor readable.
    Expiring leases are not signalled; an empty ReceiveResponse says when the next one is due.
    """

    def fileno(self) -> int:
        """An eventfd, non-blocking; closed with the object."""
    def drain(self) -> list[str]:
        """Topics that changed since the last drain, each once, and clears them."""
    def close(self) -> None:
        """Ends the wake-ups and closes the descriptor."""

@final
class Broker:
    """A broker in this process. Thread-safe; refused after fork."""

    def __init__(
        self,
        data_dir: str | None,
        *,
        queue_size: int = 2000,
        visibility_timeout_ms: int = 30_000,
        partitions: int = 4,
        durability: str = "os",
        clock: ManualClock | None = None,
    ) -> None:
        """Opens the folder, making it if there is none, or a broker in memory (None).

        Args:
            queue_size: records kept in memory per partition (the bound of the buffer that `memory` topics live in).
            visibility_timeout_ms: default length of a lease, for topics that set none.
            partitions: default partition count of a new topic.
            durability: default of a new topic: ``memory``, ``os`` or ``fsync``.

        Raises:
            InUseError: another process has it open.
            FormatError: written by a newer version, or not a broker's folder.
            StorageError: it cannot be read or written.
            CorruptError: a file outside the logs' tails is damaged.
        """
    def call(self, method: str, request: Buffer) -> bytes:
        """Runs one unary call of BrokerService, such as ``"Produce"``; never waits for records (``wait_ms`` is ignored).

        Produce on a `fsync` topic returns when the batch is synced, which can take milliseconds.
        """
    def produce_waits(self, topic: str) -> bool:
        """Whether Produce on this topic waits for the disk (durability `fsync`); False for an unknown topic."""
    def subscribe(self, topic: str | None = None) -> Subscription:
        """Wake-ups for one topic, existing or not, or for all."""
    def release(self, topic: str, group: str, consumer: str) -> None:
        """Gives back at once every lease of a consumer, as when its stream died. Unknown names are fine."""
    def metrics(self) -> list[tuple[str, int, int, int, int, int, int]]:
        """Per partition: topic, partition, start offset, end offset, bytes, records appended, records leased by this process."""
    def close(self, flush: bool = True) -> None:
        """Writes and syncs what is buffered and lets go of the folder. ``flush=False`` leaves what kill -9 would."""

@final
class ProducerBuffer:
    """Encodes records into one batch per partition, up to the bounds of a request. Thread-safe."""

    def __init__(self, topic: str, producer: str, sequences: Sequence[int], batch_bytes: int, batch_records: int) -> None:
        """``sequences``: the highest stored sequence of each partition; its length is the partition count.

        Args:
            batch_bytes: size at which a batch is ready, 1 to 8 MiB.
            batch_records: count at which a batch is ready, 1 to 65,536.
        """
    def send(
        self,
        value: Buffer,
        key: Buffer | None = None,
        partition: int | None = None,
        timestamp_ns: int = 0,
        headers: Mapping[str, bytes] | None = None,
    ) -> int:
        """Adds a record to the batch of its partition: the given one, or its key's, or the sticky one without a key.

        Returns -1, or the partition whose batch is ready and must be taken before more is sent to it (a batch that
        is not taken grows past its bound, up to 8 MiB, then InvalidArgumentError), or -2 when the buffer was empty before.

        Raises:
            InvalidArgumentError: a record over 1 MiB, or a bad header or partition; nothing was added.
        """
    def send_many(self, values: Sequence[Buffer], keys: Sequence[Buffer | None] | None = None, start: int = 0) -> tuple[int, int]:
        """Adds records from ``start`` until a batch is ready; returns (next start, ready partition or -1)."""
    def take(self, partition: int) -> tuple[bytes, int] | None:
        """The partition's batch as an encoded ProduceRequest with the next sequence, and its record count; None if empty."""
    def waiting(self) -> list[int]:
        """Partitions with records not taken."""
    def __len__(self) -> int:
        """Records not taken."""
    @property
    def nbytes(self) -> int:
        """Bytes not taken."""

@final
class Delivery:
    """Records of one contiguous range, decoded on demand; keeps the response's bytes, copies a record when asked."""

    @staticmethod
    def parse(response: bytes) -> list[Delivery]:
        """The deliveries (field 1) of an encoded ReceiveResponse or ReadResponse."""
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def log_id(self) -> bytes: ...
    @property
    def base_offset(self) -> int: ...
    @property
    def lease_id(self) -> bytes: ...
    @property
    def attempt(self) -> int: ...
    @property
    def visibility_timeout_ms(self) -> int: ...
    def __len__(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Bytes of the encoded records."""
    @property
    def values(self) -> list[bytes]: ...
    @property
    def keys(self) -> list[bytes | None]: ...
    @property
    def timestamps_ns(self) -> list[int]:
        """The producers' times; 0 where none was given."""
    @property
    def append_times_ns(self) -> list[int]:
        """The broker's times."""
    @property
    def headers(self) -> list[dict[str, bytes]]: ...
    @property
    def records(self) -> memoryview:
        """The encoded records, each with its field tag (0x7A) and length: the bytes of a RecordBatch. Not copied."""

@final
class HashRing:
    """A consistent-hash ring: which node answers for a key, and which nodes stand in for it.

    Equal nodes, weights and ``virtual_nodes`` give equal answers in every process, on every machine and in every language:
    the hash (XXH3-64) and the construction are fixed and written down, with vectors, in docs/protocol.md. A key is
    ``bytes`` or any buffer, or a ``str``, which stands for its UTF-8. Thread-safe.

    Every refusal is an InvalidArgumentError and leaves the ring unchanged; a key of another type is a TypeError.
    """

    def __new__(cls, nodes: Iterable[str] | Mapping[str, float] | None = None, *, virtual_nodes: int = 150) -> Self:
        """A ring of these nodes, each of weight 1, or with the weights of a mapping.

        Args:
            nodes: distinct names of 1 to 255 bytes of UTF-8.
            virtual_nodes: points on the ring per node of weight 1; more spread keys more evenly and take more memory
                (about 20 bytes a point, 2^20 points at most). With 150 a node's keys are mostly within 15 % of its share.
        """
    def add_node(self, node: str, weight: float = 1.0) -> None:
        """Adds a node with a share of ``weight`` (above 0) relative to the others; only keys it takes over move."""
    def remove_node(self, node: str) -> None:
        """Removes a node; its keys go to the next node of their preference lists, and no others move."""
    @property
    def nodes(self) -> list[str]:
        """The nodes' names in the byte order of their UTF-8; a new list."""
    @property
    def weights(self) -> dict[str, float]:
        """Each node's weight, in the order of ``nodes``; a new dict."""
    @property
    def virtual_nodes(self) -> int: ...
    def node_for(self, key: str | Buffer) -> str:
        """The node of a key."""
    def nodes_for(self, key: str | Buffer, n: int) -> list[str]:
        """The preference list of a key: ``n`` (1 or more) distinct nodes, its own first, then clockwise; all if fewer."""
    def node_for_each(self, keys: Iterable[str | Buffer]) -> list[str]:
        """The nodes of many keys, in their order; faster than one call a key."""
    def indexes_for(self, keys: Buffer, offsets: Buffer | None = None) -> memoryview:
        """The nodes of many keys in one buffer, as indexes into ``nodes``, in the keys' order. Releases the GIL.

        Args:
            keys: without ``offsets``, each item of the buffer is a key (a NumPy array of dtype ``S40`` holds keys of 40
                bytes); ``bytes`` is borrowed, other buffers are copied.
            offsets: int32 or int64, as in an Arrow binary or string column: key ``i`` is
                ``keys[offsets[i]:offsets[i + 1]]`` in bytes, so there is one more than there are keys.

        Returns:
            One unsigned 32-bit number a key; NumPy and Arrow take it without a copy.
        """
    def place(self, topic: str, partitions: int) -> list[str]:
        """The node of each of a topic's 1 to 65,536 partitions, evenly: at most ``ceil(partitions / nodes)`` a node.

        With unequal weights at most a node's share of the points, rounded up. A topic that grows leaves the partitions it
        had where they were. Put the configured nodes on the ring, not only the healthy ones, or partitions move with health.
        """
    def __len__(self) -> int:
        """Number of nodes."""
    def __contains__(self, node: str, /) -> bool:
        """Whether a node of this name is on the ring."""
