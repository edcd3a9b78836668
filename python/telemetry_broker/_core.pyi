"""The Rust core, as Python sees it. Private: use ``telemetry_broker``; this page is for those who work on it.

Requests and responses are the encoded messages of ``telemetry_broker/v1/broker.proto``, so an embedded broker and a
remote one are driven by the same bytes. Every call that can take longer than a few microseconds releases the GIL. Every
error is a ``telemetry_broker.BrokerError``.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar, final

from typing_extensions import Buffer

from telemetry_broker.errors import BrokerError

_W = TypeVar("_W")

__version__: str

def error_codes() -> dict[str, int]:
    """Every code the core can raise, and its gRPC status; a test holds ``telemetry_broker.errors.CODES`` against it."""

def partition_for_key(key: Buffer, partitions: int) -> int:
    """XXH3-64 (seed 0) of the key modulo ``partitions`` (at least 1). Test vectors: docs/protocol.md."""

@final
class ManualClock:
    """A clock that only the test moves: wall time and deadlines alike. Shared by every broker it is given to."""

    def __new__(cls, now_ns: int = 1_700_000_000_000_000_000) -> Self:  # noqa: PYI054
        """A clock that shows ``now_ns``, nanoseconds since the epoch."""
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
class Unsettled:
    """What a call wrote to a `fsync` topic and is not known to be on disk yet."""

    @property
    def lane(self) -> str:
        """Those of one lane, ``topic/partition``, wait for the same disk syncs."""

@final
class Broker:
    """A broker in this process. Thread-safe; refused after fork."""

    def __new__(
        cls,
        data_dir: str | None,
        *,
        queue_size: int = 2000,
        visibility_timeout_ms: int = 30_000,
        partitions: int = 4,
        durability: str = "os",
        min_free_bytes: int = 268_435_456,  # noqa: PYI054
        clock: ManualClock | None = None,
        name: str = "",
        members: Sequence[tuple[str, str]] | None = None,
    ) -> Self:
        """Opens the folder, making it if there is none, or a broker in memory (None).

        Args:
            queue_size: records kept in memory per partition (the bound of the buffer that `memory` topics live in).
            visibility_timeout_ms: default length of a lease, for topics that set none.
            partitions: default partition count of a new topic.
            durability: default of a new topic: ``memory``, ``os`` or ``fsync``.
            min_free_bytes: free bytes of the disk below which Produce fails with ``log.full``; acks go on.
            name: what it is called among others, such as ``msg-queue-0``.
            members: names and addresses of all brokers, itself included, for clients that ask it; none: it is alone.

        Raises:
            InUseError: another process has it open.
            FormatError: written by a newer version, or not a broker's folder.
            StorageError: it cannot be read or written.
            CorruptError: a file outside the logs' tails is damaged.
        """
    def call(self, method: str, request: Buffer | EncodedBatch) -> bytes:
        """Runs one unary call of BrokerService, such as ``"Produce"``; never waits for records (``wait_ms`` is ignored).

        Produce on a `fsync` topic returns when the batch is synced, which can take milliseconds.
        """
    def receive(self, request: Buffer) -> tuple[list[Delivery], int]:
        """As ``call("Receive", request)``, without a message: the deliveries, and ``next_due_ms``.

        The records are read where the broker has them, so a delivery keeps up to four times its own bytes in memory.
        """
    def call_unsettled(self, method: str, request: Buffer | EncodedBatch) -> tuple[bytes, Unsettled | None]:
        """As ``call``, but what Produce or Ack wrote to a `fsync` topic is left to ``settle``: it never waits for the disk.

        With an ``Unsettled`` the answer may be told to nobody before ``settle`` said that it holds.
        """
    def settle(self, unsettled: Sequence[Unsettled]) -> list[BrokerError | None]:
        """Waits until each is on disk, and returns for each what went wrong, if anything; those of a lane share a sync."""
    def produce_waits(self, topic: str) -> bool:
        """Whether Produce on this topic waits for the disk (durability `fsync`); False for an unknown topic."""
    def subscribe(self, topic: str | None = None) -> Subscription:
        """Wake-ups for one topic, existing or not, or for all."""
    def release(self, topic: str, group: str, consumer: str) -> None:
        """Gives back at once every lease of a consumer, as when its stream died. Unknown names are fine."""
    def render_metrics(self, service: str) -> bytes:
        """The broker's metrics in the text format of Prometheus 0.0.4, UTF-8, with the label ``service``.

        Takes about 3 ms and half a megabyte for 1,000 partitions with a group, and reads no file. At most 20,000 rows (one a
        topic, one a partition, one a partition and group): topics that do not fit are left out, and counted.
        """
    def partition_numbers(self) -> list[int]:
        """The partition numbers that some topic has, rising."""
    def close(self, flush: bool = True) -> None:
        """Writes and syncs what is buffered and lets go of the folder. ``flush=False`` leaves what kill -9 would."""

@final
class Access:
    """Who may do what: the tokens that are valid, and the roles of their clients on topics. Thread-safe."""

    def __new__(cls, *, max_calls_per_client: int) -> Self:
        """One that lets nobody in yet. Streams and long polls are calls, too."""
    def replace(
        self, grants: Sequence[tuple[str, bytes, int | None, Sequence[str], Sequence[str], Sequence[str]]]
    ) -> None:
        """From here on these tokens are valid, and no others; streams of those that went away end.

        Args:
            grants: of each token its client, its SHA-256, the second since the epoch in which it expires or None, and
                patterns of topics for the roles produce, consume and admin: a topic's name, or its beginning and a ``*``.

        Raises:
            InvalidArgumentError: a pattern that is none. Nothing was changed.
        """
    def enter(self, token: str | None) -> Caller:
        """Takes up a call of whoever sends this token.

        Raises:
            UnauthenticatedError: no token, or one that is not valid.
            UnavailableError: the client has too many calls under way (``limit.exceeded``).
        """
    @property
    def refused(self) -> dict[str, int]:
        """Calls that were refused since the start: ``unauthenticated``, ``denied`` and ``limited``."""

@final
class Caller:
    """Who makes a call. Counts as one call of its client while it lives."""

    @property
    def is_current(self) -> bool:
        """Whether its token is valid and has the roles it had."""
    def check(self, path: str, topic: str) -> None:
        """Refuses a gRPC call, ``/package.Service/Method``, that the caller may not make.

        Raises:
            PermissionDeniedError: it has not the role that ``access_rules`` tells.
        """
    def sees(self, topic: str) -> bool:
        """Whether it has a role on the topic."""

def access_rules() -> dict[str, str]:
    """What each gRPC call needs, by its path; one that is not among them needs every role on all topics."""

@final
class GrpcServer:
    """BrokerService of a core over gRPC, on threads of its own."""

    def __new__(
        cls,
        broker: Broker | Cluster | None,
        *,
        forward_to: str | None = None,
        access: Access | None = None,
        max_connections: int = 10_000,
    ) -> Self:
        """A server that listens nowhere yet.

        Args:
            broker: whose calls it answers: those of a broker of this process, or of brokers elsewhere, on whose threads
                it then runs, too. None: all calls are of other services.
            forward_to: path of a Unix socket, whose server gets the calls of all other services; None: they are refused.
            access: who may do what over TCP; None: everybody may everything. A Unix socket lets in whom its file lets in.
            max_connections: at the same time; further ones are closed at once.

        Raises:
            OSError: its threads could not be started.
        """
    def listen(self, host: str, port: int) -> int:
        """Binds a port of all addresses of a host, 0 for a free one, and returns it; raises OSError."""
    def listen_unix(self, path: str) -> None:
        """Binds a Unix socket, which must not be there; raises OSError. It is removed at the end."""
    def set_tls(self, chain: bytes, key: bytes, client_ca: bytes | None = None) -> None:
        """TCP connections from here on use TLS; those that are there stay as they are. An error changes nothing.

        Args:
            chain: PEM of the server's certificate and what it is signed by.
            key: PEM of its private key.
            client_ca: PEM of the authorities of which a client must have a certificate; None: it needs none.

        Raises:
            InvalidArgumentError: one of them cannot be used, or the key is not the certificate's.
        """
    def start(self) -> None:
        """Takes calls from here on, unless stopped."""
    def stop(self, grace: float) -> None:
        """Takes no new call, lets those under way finish for ``grace`` seconds, and ends. Repeating it is fine.

        Long polls end with `broker.draining`, Consume streams with a goodbye; the leases of those that do not end in time
        are given back.
        """
    @property
    def active(self) -> int:
        """Calls of BrokerService under way, long polls and streams included."""
    @property
    def connections(self) -> tuple[int, int]:
        """Connections now, and how many were refused because there were ``max_connections``."""

@final
class ProducerBuffer:
    """Encodes records into one batch per partition, up to the bounds of a request. Thread-safe."""

    def __new__(
        cls,
        topic: str,
        producer: str,
        sequences: Sequence[int],
        batch_bytes: int,
        batch_records: int,
        linger: float,
    ) -> Self:
        """``sequences``: the highest stored sequence of each partition; its length is the partition count.

        Args:
            batch_bytes: size at which a batch is ready, 1 to 8 MiB.
            batch_records: count at which a batch is ready, 1 to 65,536.
            linger: seconds after its first record at which a batch is ``due``.
        """
    def rename(self, producer: str) -> None:
        """Batches that are taken from here on have this producer's name, which must be as long as the one before."""
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
    def send_many(
        self, values: Sequence[Buffer], keys: Sequence[Buffer | None] | None = None, start: int = 0
    ) -> tuple[int, int]:
        """Adds records from ``start`` until a batch is ready; returns (next start, ready partition or -1)."""
    def take(self, partition: int) -> EncodedBatch | None:
        """The partition's batch with the next sequence; None if empty."""
    def due(self, timeout: float | None = None) -> list[int]:
        """Sleeps until the first record of a batch has lingered; returns the partitions of which that is true, each once.

        Returns an empty list after ``timeout`` seconds, or at a ``wake``. For one thread.
        """
    def wake(self) -> None:
        """Ends the sleep in ``due``, or the next one before it begins."""
    def waiting(self) -> list[int]:
        """Partitions with records not taken."""
    def __len__(self) -> int:
        """Records not taken."""
    @property
    def nbytes(self) -> int:
        """Bytes not taken."""
    @property
    def halted(self) -> bool:
        """Whether ``BufferedSend`` has to make way before it adds a record."""
    @halted.setter
    def halted(self, halted: bool) -> None: ...

@final
class EncodedBatch:
    """One batch as an encoded ProduceRequest: ``bytes(batch)``; its length is the number of its records.

    ``Broker.call`` takes its records as they are, unchecked and uncopied: once they are appended, ``bytes`` raises.
    """

    def __bytes__(self) -> bytes: ...
    def in_stream(self) -> bytes:
        """As an encoded ProduceStreamRequest, which is what ``Exchange.send`` makes of it."""
    def __len__(self) -> int: ...

@final
class BufferedSend:
    """``Producer.send``: a record into the buffer, and a call of Python only where there is something to decide."""

    def __new__(
        cls,
        buffer: ProducerBuffer,
        make_way: Callable[[], None],
        added: Callable[[int], None],
        bad_numbers: Callable[[int | None, int], Exception],
        eager: bool,
    ) -> Self:
        """What is called, and when.

        Args:
            make_way: before a record, while the buffer is ``halted``; what it raises is raised.
            added: behind a record that ``ProducerBuffer.send`` did not answer with -1, with the answer.
            bad_numbers: makes the error of a partition or a time that fits no field.
            eager: ``added`` is called behind each record.
        """
    def send(
        self,
        value: Buffer,
        key: Buffer | None = None,
        *,
        partition: int | None = None,
        timestamp_ns: int | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """See ``telemetry_broker.Producer.send``."""

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
    def value_views(self) -> list[memoryview]:
        """The values as read-only views of the response's bytes, which live as long as one of the views. Not copied."""
    @property
    def key_views(self) -> list[memoryview | None]:
        """The keys likewise."""
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
    def set_healthy(self, node: str, healthy: bool) -> None:
        """Marks a node; a new one is healthy. An unhealthy one keeps its place on the ring, and every answer walks past it.

        Its keys and partitions go to the next healthy node of their preference lists, and come back when it is healthy
        again; no others move. Where all nodes are unhealthy the marks are ignored: nothing better is known then.
        """
    @property
    def unhealthy(self) -> list[str]:
        """The nodes marked unhealthy, in the order of ``nodes``; a new list."""
    @property
    def nodes(self) -> list[str]:
        """The nodes' names in the byte order of their UTF-8; a new list."""
    @property
    def weights(self) -> dict[str, float]:
        """Each node's weight, in the order of ``nodes``; a new dict."""
    @property
    def virtual_nodes(self) -> int: ...
    def node_for(self, key: str | Buffer) -> str:
        """The node of a key: the first healthy one clockwise."""
    def nodes_for(self, key: str | Buffer, n: int) -> list[str]:
        """The preference list of a key: ``n`` (1 or more) distinct healthy nodes, its own first, then clockwise."""
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
        had where they were. Put all configured nodes on the ring and mark those that are down with ``set_healthy``: then only
        the partitions of those move, on top of the bound.
        """
    def __len__(self) -> int:
        """Number of nodes."""
    def __contains__(self, node: str, /) -> bool:
        """Whether a node of this name is on the ring."""

@final
class CsvReader:
    """A DCGM dump in CSV, one sample a row, read block by block as batches of wide line-protocol points.

    A row is one physical line (a quote that is not closed costs its own row only). Columns are found by name, in any
    order; a byte order mark and CRLF are accepted; blank lines are passed over. Every other row is counted once:
    ``rows == samples + duplicates + missing + resumed + sum(rejected.values())``.

    A point is the rows of a block with the same time and tags: ``gpu,<tags> <fields> <time_ns>``, one record, its key
    the GPU's uuid. Tags are the columns (``gpu_id`` is ``gpu``, ``modelName`` is ``model``) and the labels but
    ``__name__`` and the repeats of columns, empty ones left out, sorted; fields are the metrics, sorted. What line
    protocol cannot carry is mended: a tab in a name or tag becomes a space, backslashes at its end are dropped.

    Exactly once. With ``producer_name`` as the producer and ``CsvBlock.end`` as the sequence of a batch sent to *every*
    partition, a reader opened with the highest sequences as ``resume`` gives out each row that is not stored, once,
    whatever the cuts before and after. The partition count must be the same.

    A last line without a line end is taken as a row when it is reached. If the file is written to while it is read, and
    that line grows, its rest is refused as ``torn`` after the next start.

    One thread at a time. Memory is bounded by the block (about 10 times ``block_bytes``) and 32 MiB of learned labels.
    """

    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        partitions: int,
        resume: Sequence[int] | None = None,
        block_bytes: int = 4_194_304,
        rejects_path: str | os.PathLike[str] | None = None,
        rejects_max_bytes: int = ...,
        time_shift_ns: int = 0,
        time_ns: int | None = None,
        metrics: Sequence[str] | None = None,
    ) -> Self:
        """Opens the file and reads its header and first row.

        Args:
            partitions: partitions of the topic, 1 to 65,536; a row belongs to ``partition_for_key(uuid, partitions)``.
            resume: per partition the highest sequence it holds; its rows that end at or before it are left out and
                counted as ``resumed``, and reading starts at the lowest. None: nothing is stored yet.
            block_bytes: multiples of this file position end a block, 1 byte to 64 MiB.
            rejects_path: refused rows are appended here as CSV ``source,position,line,reason,row``, before their block
                is returned; each once, also through crashes and resumes, while one dump at a time uses the file. Made
                with the first such row. Without it they are counted only.
            rejects_max_bytes: size at which rows are no longer kept, only counted (``rejects_unkept``).
            time_shift_ns: added to every row's time.
            time_ns: every row's time, as in a live scrape; rows with a bad time of their own are refused nevertheless.
            metrics: names that the store has already. A row whose metric differs from one of them, or from one that came
                earlier in the dump, only in case is refused, and so is one that is named as a tag.

        Raises:
            BrokerError: ``csv.not_found``, ``csv.unreadable`` (no regular file, no permission, a disk fault), ``csv.empty``,
                ``csv.header`` (names the columns that are missing), ``csv.shrunk`` (shorter than ``resume``),
                ``csv.rejects`` (the reject file cannot be used, or is some other file), ``invalid.argument``.
        """
    def next_block(self, max_rows: int | None = None) -> CsvBlock | None:
        """The next block, None at the end of the file. Releases the GIL.

        It ends at the last row end before a multiple of ``block_bytes``, or after ``max_rows`` (at least 1) rows, or
        before a batch would pass 8 MiB or 65,536 records or a record 1 MiB. Always has at least one row.

        Raises:
            BrokerError: ``csv.unreadable``, ``csv.rejects``; the reader is of no further use, open it again.
        """
    @property
    def producer_name(self) -> str:
        """``csv-`` and 32 hexadecimal digits, the XXH3-128 of header and first row."""
    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
    @property
    def position(self) -> int:
        """File position of the next row."""
    @property
    def rejects_path(self) -> Path | None:
        """The reject file, once there is one."""
    @property
    def rejects_unkept(self) -> int:
        """Refused rows that were not kept, for the reject file is full."""
    @property
    def rows(self) -> int:
        """Rows of all blocks so far; so are the counters below."""
    @property
    def samples(self) -> int: ...
    @property
    def points(self) -> int: ...
    @property
    def duplicates(self) -> int: ...
    @property
    def missing(self) -> int: ...
    @property
    def resumed(self) -> int: ...
    @property
    def times_ns(self) -> tuple[int, int] | None: ...
    @property
    def rejected(self) -> dict[str, int]: ...

@final
class CsvBlock:
    """Some consecutive rows of a dump as one batch per partition."""

    @property
    def end(self) -> int:
        """File position after the last row: the producer sequence of these batches."""
    @property
    def batches(self) -> list[bytes]:
        """One a partition, empty where it has no points.

        Encoded record entries (tag 0x7A), at most 8 MiB: the ``records`` field of a RecordBatch or ProduceRequest.
        """
    @property
    def counts(self) -> list[int]:
        """Records per batch, at most 65,536."""
    @property
    def rows(self) -> int:
        """Rows, blank lines not counted."""
    @property
    def samples(self) -> int:
        """Values in the points."""
    @property
    def points(self) -> int:
        """Points, which are records too."""
    @property
    def duplicates(self) -> int:
        """Rows that a later row with the same time, tags and metric replaced."""
    @property
    def missing(self) -> int:
        """Rows without a value: empty, or one of DCGM's "blank" sentinels."""
    @property
    def resumed(self) -> int:
        """Rows that their partition already holds."""
    @property
    def times_ns(self) -> tuple[int, int] | None:
        """Least and greatest time of the points, nanoseconds since the epoch; None without points."""
    @property
    def rejected(self) -> dict[str, int]:
        """Refused rows by reason, only those that came up.

        ``too_long`` (over 1 MiB) ``utf8`` ``quotes`` ``short`` ``long`` ``timestamp`` ``metric`` ``uuid`` ``number``
        ``not_finite`` ``labels`` ``torn``.
        """

CSV_HEADER: bytes
"""First line of a dump, with its line end."""

FLEET_METRICS: tuple[str, ...]
"""The 30 metrics that simulated GPUs have: those of every dump, then the rest of dcgm-exporter's defaults, then more."""

@final
class SimulatedFleet:
    """Hosts with GPUs, jobs that come and go on them, and what dcgm-exporter would say of it, scrape by scrape.

    The same arguments give the same bytes, on every machine. A host depends on the seed and its own number alone, so a
    larger fleet has the smaller one in it. One thread at a time. Memory: about 1 KB a GPU.
    """

    def __new__(
        cls,
        *,
        hosts: int,
        gpus: int,
        metrics: int,
        start_ns: int,
        interval_ns: int,
        scrapes: int | None = None,
        seed: int = 0,
    ) -> Self:
        """Makes a fleet that has worked for some days already. Releases the GIL.

        Args:
            hosts: 1 to 65,536.
            gpus: of each host, 1 to 16.
            metrics: how many of ``FLEET_METRICS``, the first ones.
            start_ns: time of the first scrape, nanoseconds since the epoch, from 1970 to 2249.
            interval_ns: from one scrape to the next, 1 ms to 1 day.
            scrapes: until it ends; None: endless.
            seed: which of all fleets like this one.

        Raises:
            BrokerError: ``invalid.argument``, one of them is out of its bounds.
        """
    @property
    def time_ns(self) -> int:
        """Time of the scrape that the next GPU belongs to."""
    def next_records(self, partitions: int, max_points: int) -> FleetBlock | None:
        """The next GPUs, one record each: a point of line protocol, its key the GPU's uuid. Releases the GIL.

        The block ends after ``max_points`` GPUs (1 at least), where a batch is full, and with its scrape; None when all
        scrapes are done. ``data`` has a batch for each of the ``partitions`` (1 to 65,536), empty where there are no
        points: encoded record entries (tag 0x7A), at most 8 MiB.

        Raises:
            BrokerError: ``invalid.argument``, also where time would pass the year 2249.
        """
    def next_rows(self, max_points: int) -> FleetBlock | None:
        """The next GPUs as rows of a dump, one a metric, with no header. Releases the GIL.

        The block ends after ``max_points`` GPUs (1 at least), past 4 MiB, and with its scrape; None when all scrapes are
        done. ``data`` has one element.

        Raises:
            BrokerError: as ``next_records``.
        """

@final
class FleetBlock:
    """Consecutive GPUs of one scrape."""

    @property
    def time_ns(self) -> int:
        """When they were scraped, nanoseconds since the epoch."""
    @property
    def points(self) -> int:
        """GPUs."""
    @property
    def samples(self) -> int:
        """Their values, all together."""
    @property
    def data(self) -> list[bytes]:
        """What was written; see the method that made it."""

@final
class ColumnBuilder:
    """Collects line protocol of one measurement into Arrow columns. One thread at a time.

    A line is taken whole or refused, without harm to its neighbours. Numbers (``1.5``, ``2i``, ``3u``) become float64,
    booleans 1 and 0. Refused, by reason: ``syntax`` ``utf8`` ``measurement`` (another one) ``time`` (none, and no
    default; or not int64 nanoseconds) ``number`` (not finite) ``string`` (a string field) ``duplicate`` (a tag or field
    twice) ``name`` (``time``; a tag named as a field or the reverse; two names that differ only in case) ``columns``
    (over 500 beside the time) ``empty`` (a record without a line). Blank lines and comments (``#``) are passed over.

    A record may also be one sample as JSON, as older senders make it: an array of the 12 fields of a row of the dump, or an
    object as the REST API takes it. It becomes the line of that sample, of the measurement ``gpu``. Refused besides:
    ``json`` (not such a record) and, as with rows of a dump, ``timestamp`` ``metric`` ``uuid`` ``number``
    ``not_finite`` ``labels``. One without a value, or with a sentinel for it, is passed over.
    """

    def __new__(
        cls,
        measurement: str,
        *,
        tags: Sequence[str] | None = None,
        fields: Sequence[str] | None = None,
        default_time_ns: int | None = None,
    ) -> Self:
        """Starts empty.

        Args:
            tags: tag columns the table already has, and likewise ``fields``: they settle what such a name is, so that
                one line with a name of the wrong kind cannot make its followers be refused. They are known in every
                batch.
            default_time_ns: time of lines that have none.
        """
    def append_records(self, records: Buffer, base_offset: int = 0) -> int:
        """Adds the lines of encoded record entries (``CsvBlock.batches``, ``Delivery.records``).

        Returns how many records there were, the first of which has offset ``base_offset``. Releases the GIL; ``bytes``
        are not copied.

        Raises:
            BrokerError: ``invalid.batch``: not such entries; ``invalid.argument``: over 1 GiB since the last
                ``finish``. Nothing was added.
        """
    def append_values(self, values: Sequence[bytes], base_offset: int = 0) -> None:
        """The same for values of records."""
    @property
    def rows(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """About the bytes of the finished columns; nulls count, so lines of many shapes take more than their text."""
    @property
    def rejected(self) -> list[tuple[int, bytes, str]]:
        """Refused lines since the last ``finish``, in order: offset of the record, line, reason."""
    def finish(self) -> ColumnBatch:
        """The columns of the lines so far; the builder is empty again, ``rejected`` too. Releases the GIL."""

@final
class ColumnBatch:
    """Columns through the Arrow PyCapsule interface: hand it to ``pyarrow.table``, ``write_deltalake``, polars.

    ``time`` (timestamp[ns, UTC], not null), the tags (dictionary of int32 to utf8) by name, the fields (float64) by
    name; null where a line had none. Only columns that some line used.
    """

    def __len__(self) -> int:
        """Rows."""
    @property
    def tags(self) -> list[str]:
        """Names of the tag columns, sorted."""
    @property
    def fields(self) -> list[str]:
        """Names of the field columns, sorted."""
    @property
    def nbytes(self) -> int:
        """Bytes of memory of the columns."""
    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """A struct array; ``requested_schema`` is ignored, as the interface allows."""
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A stream of one batch; can be called again."""

@final
class NewestValues:
    """The newest value of each metric of each GPU: a column a metric, by the GPUs' numbers, 0 and up.

    A value is replaced by one of the same time or a later one, never by an older one, and never by NaN. Works without
    the GIL. Thread-safe; each call by itself.
    """

    def __new__(cls, tags: Sequence[str], max_metrics: int, max_names: int) -> Self:
        """Begins without a GPU.

        Args:
            tags: whose values tell GPUs apart, in the order in which they are said below.
            max_metrics: later ones are left out.
            max_names: combinations of tags that are remembered; of one more, all are forgotten and asked for again.
        """
    def add(self) -> int:
        """A GPU more, seen at 0 and without a value: its number."""
    def name(self, tags: Sequence[str], number: int) -> None:
        """From now on these tags mean this number."""
    def forget(self, tags: Sequence[str]) -> None:
        """From now on these tags mean nothing."""
    def number(self, tags: Sequence[str]) -> int:
        """What these tags mean; -1: nothing."""
    def numbers(self, batch: ColumnBatch, number: Callable[[tuple[str, ...]], int]) -> list[int]:
        """The number of each row's GPU; nothing is taken in.

        ``number`` is asked for tags that mean nothing, once for each combination; a row without a tag has "" for it.
        """
    def take_in(self, batch: ColumnBatch, numbers: Sequence[int]) -> None:
        """Takes in rows, whose GPUs have these numbers; those of a number that there is not are passed over."""
    def put(self, number: int, seen_ns: int, values: Sequence[tuple[str, float, int]]) -> bool:
        """Takes in (metric, value, time) of a GPU from elsewhere, where that is later; returns whether any is."""
    def metrics(self) -> list[str]:
        """Names, sorted."""
    def column(self, metric: str) -> list[float]:
        """By GPU; NaN where there is none."""
    def values(self, number: int) -> list[tuple[str, float, int]]:
        """(metric, value, time) of a GPU, sorted by metric."""
    def seen_ns(self, numbers: Sequence[int] | None = None) -> list[int]:
        """The latest time of each of these GPUs; None: of all. Raises IndexError for a number that there is not."""
    def drain_changed(self) -> list[int]:
        """The GPUs of which something came in since the last call, sorted."""

@final
class LineBuilder:
    """As ``ColumnBuilder``, but what it collects stays line protocol: for stores that take that.

    Every field is written as a float (``2i`` as ``2``, ``t`` as ``1``), and every line has its time.
    """

    def __new__(
        cls,
        measurement: str,
        *,
        tags: Sequence[str] | None = None,
        fields: Sequence[str] | None = None,
        default_time_ns: int | None = None,
    ) -> Self: ...
    def append_records(self, records: Buffer, base_offset: int = 0) -> int: ...
    def append_values(self, values: Sequence[bytes], base_offset: int = 0) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """About the bytes of the finished lines, with what is kept to tell their records."""
    @property
    def rejected(self) -> list[tuple[int, bytes, str]]: ...
    def finish(self) -> LineBatch:
        """The lines so far; the builder is empty again, ``rejected`` too. Releases the GIL."""

@final
class LineBatch:
    """Lines in the order of their records, counted from 0."""

    def __len__(self) -> int:
        """Lines."""
    @property
    def samples(self) -> int:
        """Values of fields in all lines."""
    @property
    def nbytes(self) -> int:
        """Bytes of all lines, line ends included."""
    def lines(self, start: int, end: int) -> bytes:
        """The lines from ``start`` to ``end``, exclusive, each with its line end; empty where there are none.

        All lines are given without a copy.
        """
    def place(self, line: int) -> tuple[int, int]:
        """Where a line came from: the number of the ``append_...`` call, from 0, and the offset of the record.

        Raises:
            InvalidArgumentError: there is no such line.
        """
    def cut(self, max_bytes: int) -> list[tuple[int, int]]:
        """Runs (start, end) of lines of at most ``max_bytes`` each; a longer line is a run by itself."""

RESERVED_COLUMNS: tuple[str, ...]
"""Columns that a store keeps for itself, in lower case: no metric and no tag may be called so, in any case."""

TAG_COLUMNS: tuple[str, ...]
"""Tags that every table has from the start: no metric may be called so, and no tag may spell one otherwise."""

def check_name(name: str, *, tag: bool = False) -> None:
    """Checks whether a metric, or a tag, may be called so; the codecs refuse what this refuses.

    Raises:
        InvalidArgumentError: it is empty, has control characters, or is taken; the message names it.
    """

def encode_point(measurement: str, tags: Mapping[str, str], fields: Mapping[str, float], time_ns: int) -> bytes:
    """One point as line protocol, without a line end; tags and fields keep their order, empty tags are left out.

    What the protocol cannot carry is mended: a line feed, carriage return or tab in a name or tag becomes a space,
    backslashes at its end are dropped.

    Raises:
        InvalidArgumentError: no field, an empty name, or a field that is NaN or infinite.
    """

class CallError(Exception):
    """A call that failed."""

    status: int
    """gRPC's number for why."""
    message: str
    """The broker's words, or those of what broke on the way."""
    code: str | None
    """The broker's code; None: it was not the broker that failed the call."""
    retry_after: float | None
    """Seconds after which the same call may succeed; only with a code."""
    field: str | None
    """What of the request is wrong; only with a code."""
    sent: bool
    """Whether the request can have reached the broker."""

@final
class Notifier:
    """Tells an event loop of the news of many exchanges, over one descriptor."""

    def __new__(cls) -> Self: ...
    def fileno(self) -> int:
        """An eventfd, readable while there are news. It is closed with this object, which it does not keep alive."""
    def drain(self) -> list[int]:
        """Takes the numbers of the exchanges with news since the last time, in the order of these."""

@final
class Exchange:
    """One call under way; cancelled when it is dropped. Thread-safe, but one thread at a time takes what comes.

    What comes and is not taken is bounded: behind 256 messages or 4 MiB nothing more is read, which holds back the broker.
    In the child of a fork it does nothing.
    """

    @property
    def number(self) -> int:
        """What its notifier calls it, 1 or more; 0 without a notifier."""
    def send(self, message: Buffer | EncodedBatch, waiting: deque[_W] | None = None, who: _W | None = None) -> None:
        """Puts a message on its way behind those before, never waits. Once the call has ended it does nothing.

        Args:
            message: at most 16 MiB, else the call fails; a batch leaves as a ProduceStreamRequest, as often as it is sent.
            waiting: gets ``who`` appended. No signal and no other thread comes between that and the message, so its order
                is that of the messages.
        """
    def finish(self) -> None:
        """Sends no more; what comes is still taken."""
    def cancel(self) -> None:
        """Ends the call at once, if it has not ended, with the status CANCELLED."""
    def receive(self, timeout: float | None = None) -> list[bytes] | None:
        """What came, in order; sleeps for a first message, up to ``timeout`` seconds. Releases the GIL.

        Returns an empty list when the time is over, and None when the call has ended and everything was taken. Ctrl-C ends
        it without a loss. Not with a notifier (ValueError).

        Raises:
            CallError: the call failed; what came before that was taken.
        """
    def drain(self) -> list[bytes] | None:
        """As ``receive``, without waiting."""
    def receive_consume(self, timeout: float | None = None) -> list[bytes | Delivery] | None:
        """As ``receive``, of a Consume stream: what is a delivery comes as that, and its records are not copied.

        Raises:
            InvalidArgumentError: a delivery that is none; all that was taken with it is lost.
        """
    def drain_consume(self) -> list[bytes | Delivery] | None:
        """As ``receive_consume``, without waiting."""
    def answer(self) -> bytes:
        """The answer to ``Channel.ask``; waits for it, unless there is a notifier, which tells when it is there.

        Raises:
            CallError: the call failed, or has no answer.
        """

@final
class Channel:
    """A connection to a broker elsewhere, on a thread of its own. Thread-safe.

    The first call connects, and so does the first one after a break. In the child of a fork every call fails.
    """

    def __new__(
        cls,
        target: str,
        *,
        token: str | None = None,
        token_file: str | None = None,
        tls: bool = False,
        ca: bytes | None = None,
        identity: tuple[bytes, bytes] | None = None,
    ) -> Self:
        """``target``: ``host:port``, ``[v6]:port`` or ``unix:/path``.

        Args:
            token: sent with each call, as ``authorization: Bearer TOKEN``.
            token_file: a file that begins with the token; read again when it has changed. ``token`` wins.
            ca: PEM of the authorities to trust, with ``tls``; None: those of this machine.
            identity: PEM of this client's certificate chain and of its key, with ``tls``.

        Raises:
            InvalidArgumentError: not such an address, or a token or certificate that cannot be used.
        """
    @staticmethod
    def to_many(
        members: Sequence[tuple[str, str]],
        *,
        virtual_nodes: int = 150,
        token: str | None = None,
        token_file: str | None = None,
        tls: bool = False,
        ca: bytes | None = None,
        identity: tuple[bytes, bytes] | None = None,
        follow: bool = False,
    ) -> Channel:
        """A channel to several brokers, which are one for whoever calls it; see ``Cluster`` for the members.

        Args:
            follow: take over the members that the brokers themselves know of.
        """
    @staticmethod
    def of_cluster(cluster: Cluster) -> Channel:
        """A channel to the brokers of a cluster that others use, too; closing it leaves the cluster open."""
    def call(self, method: str, request: Buffer, timeout: float | None = None) -> bytes:
        """Runs a unary call of BrokerService, for ``timeout`` seconds at most. Releases the GIL; Ctrl-C cancels the call.

        Raises:
            CallError: it failed.
        """
    def ask(
        self, method: str, request: Buffer, timeout: float | None = None, notifier: Notifier | None = None
    ) -> Exchange:
        """Begins a unary call; its news are that it has ended. Once closed, the exchange has failed: CANCELLED."""
    def exchange(self, method: str, timeout: float | None = None, notifier: Notifier | None = None) -> Exchange:
        """Begins a stream; its news are messages and the end. Once closed, the exchange has failed: CANCELLED."""
    def close(self) -> None:
        """Ends every call with CANCELLED and lets go of the connection. Repeating it is fine."""

@final
class Cluster:
    """Several brokers as one: it connects to them by itself, watches their health and routes. Thread-safe."""

    def __new__(
        cls,
        members: Sequence[tuple[str, str]],
        *,
        virtual_nodes: int = 150,
        token: str | None = None,
        token_file: str | None = None,
        tls: bool = False,
        ca: bytes | None = None,
        identity: tuple[bytes, bytes] | None = None,
    ) -> Self:
        """``members``: name and ``host:port`` (or ``unix:/path``) of each broker; the ring knows them by their names.

        Args:
            virtual_nodes: points that a broker has on the ring.
            token: as for ``Channel``, like all that follow.
            token_file: see there.
            tls: see there.
            ca: see there.
            identity: see there.

        Raises:
            InvalidArgumentError: no members, more than 1,000, a name or an address twice, or one that is none.
        """
    def set_members(self, members: Sequence[tuple[str, str]]) -> None:
        """From here on these are the members; those that stay keep their connections. An error changes nothing."""
    def members(self) -> list[Member]:
        """The members as they are now, by name."""
    def placement(self) -> list[tuple[str, list[str]]]:
        """For each topic that is known, by name: the broker that each of its partitions is placed at."""
    def take_events(self) -> list[tuple[str, str]]:
        """What happened since it was asked last, ``info`` or ``warning`` and a text; the last 1,000 are kept."""
    def close(self) -> None:
        """Ends every call. Repeating it is fine."""

@final
class Member:
    """One broker of a ``Cluster``, as it was when it was asked for."""

    @property
    def name(self) -> str:
        """As the ring has it."""
    @property
    def address(self) -> str:
        """``host:port``, or ``unix:/path``."""
    @property
    def state(self) -> str:
        """Of its circuit breaker: ``closed`` (it is well), ``open`` (it is away) or ``half-open`` (it is being tried)."""
    @property
    def draining(self) -> bool:
        """It takes no new records."""
    @property
    def broker_id(self) -> bytes:
        """8 bytes, made with its folder; empty: not known yet."""
    @property
    def version(self) -> str:
        """Of its program; empty: not known yet."""
    @property
    def calls_itself(self) -> str:
        """What it calls itself; empty: nothing, or not known yet."""
    @property
    def error(self) -> str:
        """Why it is away; empty: it is not, or was not asked yet."""
    @property
    def requests(self) -> int:
        """Calls and messages sent to it."""
    @property
    def failures(self) -> int:
        """Those that failed by its fault."""
    @property
    def health_checks(self) -> int:
        """How often it was found out whether it is well."""
    @property
    def failures_detected(self) -> int:
        """How often it was found to be away."""

@final
class LogFinding:
    """One thing that is wrong with a file of a broker's folder."""

    @property
    def path(self) -> str:
        """The file; for a missing segment or partition, where it should be."""
    @property
    def topic(self) -> str | None: ...
    @property
    def partition(self) -> int | None: ...
    @property
    def kind(self) -> str:
        """Stable: torn_tail, damaged_frames, damaged_header, missing_segment, foreign_segment, overlapping_segments, newer_format, unreadable_state, low_ceiling, unreadable_producers, unreadable_journal, damaged_journal, unreadable_topic, missing_partition or unreadable_broker."""
    @property
    def position(self) -> int:
        """First bad byte."""
    @property
    def damaged_bytes(self) -> int:
        """How many bytes are bad."""
    @property
    def lost(self) -> tuple[int, int] | None:
        """First offset that cannot be read any more, and the one behind the last, at most; None where no record is lost."""
    @property
    def what(self) -> str:
        """A sentence about it."""
    @property
    def remedy(self) -> str:
        """What repair does about it, or what a person has to do."""
    @property
    def mended(self) -> bool:
        """Whether repair did that."""

def log_verify(
    path: str | os.PathLike[str],
    *,
    topic: str | None = None,
    partition: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[LogFinding]:
    """Reads every file of a broker's folder, or of one topic or partition, and lists what is wrong. Changes nothing.

    Locks the folder while it runs and releases the GIL.

    Args:
        progress: called with (bytes done, bytes in all) about every 8 MiB and at the end; an exception ends the work.

    Raises:
        InUseError: a broker has the folder open.
        FormatError: it is no broker's folder.
        InvalidArgumentError: there is no such topic or partition.
        StorageError: a file cannot be read.
    """

def log_repair(
    path: str | os.PathLike[str],
    *,
    topic: str | None = None,
    partition: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[LogFinding]:
    """Mends what ``log_verify`` finds and lists it; ``mended`` tells what was left to a person.

    Every whole frame and readable entry is kept, and each damaged original beside the mended file as ``<name>.damaged``.
    Offsets that are gone become an explained gap. Interrupted at any moment it can be run again; on a sound folder it
    changes nothing. Arguments and errors are those of ``log_verify``; FullError: no room for the copies.
    """

@final
class LogFrame:
    """One frame of a segment: a batch as it was appended."""

    @property
    def segment(self) -> str:
        """The file."""
    @property
    def position(self) -> int:
        """First byte of the frame in it."""
    @property
    def nbytes(self) -> int:
        """Bytes of the frame."""
    @property
    def base_offset(self) -> int:
        """Offset of the first record; of the next one where there is none."""
    @property
    def count(self) -> int:
        """Records; 0 moves a producer's sequence, or the end of the log."""
    @property
    def skipped(self) -> int:
        """Offsets left out in front of ``base_offset``, never readable."""
    @property
    def append_ns(self) -> int:
        """The broker's wall clock, nanoseconds since the epoch."""
    @property
    def producer_id(self) -> int:
        """Hash of the producer's name; 0: none."""
    @property
    def sequence(self) -> int:
        """The batch's sequence; 0: none."""
    @property
    def synced_end(self) -> int:
        """Every offset below was on disk when the frame was written."""
    def records(self, values: bool = False) -> list[tuple[int, int, bytes | None, bytes | None, int]]:
        """(offset, producer's time in nanoseconds or 0, key, value or None without ``values``, bytes of the value) of each."""

@final
class LogDump:
    """Frames of one partition, in batches of about 1 MiB; a LogFinding stands where frames are damaged. Releases the GIL.

    The folder is locked until the iteration has ended or ``close`` was called.
    """

    def __new__(
        cls,
        path: str | os.PathLike[str],
        topic: str,
        partition: int,
        *,
        start: int = 0,
        end: int | None = None,
    ) -> Self:
        """Frames that reach into the offsets ``start`` to ``end``, exclusive (None: all). Errors: see ``log_verify``.

        Raises:
            NotFoundError: there is no such topic or partition.
        """
    def __iter__(self) -> Self: ...
    def __next__(self) -> list[LogFrame | LogFinding]: ...
    def close(self) -> None:
        """Lets go of the folder."""
