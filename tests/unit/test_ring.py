"""HashRing and partition_for_key as Python sees them; broker_core/tests/ring_model.rs proves what the ring promises."""

import array
import copy
import json
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import Buffer

from telemetry_broker import HashRing, InvalidArgumentError, partition_for_key

VECTORS = Path(__file__).parents[1] / "vectors"
BROKERS = [f"broker-{i}" for i in range(3)]


def load(file: str) -> Any:
    return json.loads((VECTORS / file).read_text(encoding="utf-8"))


def partition_vectors() -> Iterator[tuple[bytes, int, int]]:
    for vector in load("partitions.json")["vectors"]:
        for partitions, expected in vector["partitions"].items():
            yield bytes.fromhex(vector["key_hex"]), int(partitions), expected


def test_partitions_are_those_of_the_published_vectors() -> None:
    for key, partitions, expected in partition_vectors():
        assert partition_for_key(key, partitions) == expected, (key, partitions)


def test_the_published_partitions_are_the_published_hashes_modulo_the_count() -> None:
    for vector in load("partitions.json")["vectors"]:
        for partitions, expected in vector["partitions"].items():
            assert int(vector["hash"], 16) % int(partitions) == expected


@pytest.mark.parametrize("vector", load("ring.json")["rings"], ids=lambda ring: ",".join(ring["nodes"]))
def test_the_ring_is_that_of_the_published_vectors(vector: dict[str, Any]) -> None:
    ring = HashRing(vector["nodes"], virtual_nodes=vector["virtual_nodes"])
    for wanted in vector["preferences"]:
        key = bytes.fromhex(wanted["key_hex"])
        assert ring.nodes_for(key, 3) == wanted["nodes"]
        assert ring.node_for(key) == wanted["nodes"][0]
    for wanted in vector["placements"]:
        assert ring.place(wanted["topic"], len(wanted["nodes"])) == wanted["nodes"]


def test_an_unhealthy_node_is_walked_past_until_it_is_healthy_again() -> None:
    ring = HashRing(BROKERS)
    keys = [f"GPU-{i}" for i in range(100)]
    before = ring.node_for_each(keys)
    ring.set_healthy("broker-1", False)
    assert ring.unhealthy == ["broker-1"]
    assert ring.nodes == BROKERS
    for key, owner, now in zip(keys, before, ring.node_for_each(keys), strict=True):
        assert now == (owner if owner != "broker-1" else ring.nodes_for(key, 1)[0])
    assert "broker-1" not in ring.place("telemetry", 12)
    ring.set_healthy("broker-1", True)
    assert ring.node_for_each(keys) == before
    with pytest.raises(InvalidArgumentError, match="broker-9"):
        ring.set_healthy("broker-9", False)


def test_members_are_listed_by_name_with_their_weights() -> None:
    ring = HashRing({"b": 2.0, "a": 1})
    ring.add_node("ä", weight=0.5)
    assert ring.nodes == ["a", "b", "ä"]
    assert ring.weights == {"a": 1.0, "b": 2.0, "ä": 0.5}
    assert ring.virtual_nodes == 150
    assert len(ring) == 3
    assert "b" in ring
    assert "c" not in ring
    ring.remove_node("b")
    assert repr(ring) == "HashRing({'a': 1.0, 'ä': 0.5}, virtual_nodes=150)"


@given(st.text())
def test_a_key_is_its_bytes_whatever_type_holds_them(text: str) -> None:
    ring, key = HashRing(BROKERS), text.encode()
    owner = ring.node_for(text)
    assert [ring.node_for(same) for same in (key, bytearray(key), memoryview(key))] == [owner] * 3
    assert ring.nodes_for(text, 3) == ring.nodes_for(key, 3)


@given(st.lists(st.binary(max_size=50), max_size=30), st.sampled_from("iq"))
def test_bulk_lookups_answer_like_single_ones(keys: list[bytes], offset_type: str) -> None:
    ring = HashRing(BROKERS)
    one_by_one = [ring.node_for(key) for key in keys]
    assert ring.node_for_each(keys) == one_by_one
    assert ring.node_for_each(iter(keys)) == one_by_one
    offsets = array.array(offset_type, [0])
    for key in keys:
        offsets.append(offsets[-1] + len(key))
    for data in (b"".join(keys), bytearray(b"".join(keys))):
        indexes = ring.indexes_for(data, offsets)
        assert indexes.format == "I"
        assert [ring.nodes[index] for index in indexes] == one_by_one


def test_without_offsets_each_item_of_a_buffer_is_a_key() -> None:
    ring, numbers = HashRing(BROKERS), array.array("Q", range(100))
    expected = [ring.node_for(struct.pack("=Q", number)) for number in numbers]
    assert [ring.nodes[index] for index in ring.indexes_for(numbers)] == expected
    assert [ring.nodes[index] for index in ring.indexes_for(memoryview(numbers)[::2])] == expected[::2]


@pytest.mark.parametrize(
    ("offsets", "error"),
    [
        (array.array("i", [0, 4]), InvalidArgumentError),
        (array.array("i", [2, 1]), InvalidArgumentError),
        (array.array("q", [-1, 1]), InvalidArgumentError),
        (array.array("d", [0.0, 1.0]), TypeError),
    ],
)
def test_offsets_outside_the_keys_are_refused(offsets: Buffer, error: type[Exception]) -> None:
    with pytest.raises(error, match="offsets"):
        HashRing(BROKERS).indexes_for(b"abc", offsets)


def test_what_the_ring_refuses_is_an_invalid_argument_that_names_it() -> None:
    ring = HashRing(BROKERS)
    refusals: list[tuple[Callable[[], object], str]] = [
        (lambda: HashRing().node_for("k"), "no nodes"),
        (lambda: HashRing().node_for_each(["k"]), "no nodes"),
        (lambda: HashRing().place("t", 1), "no nodes"),
        (lambda: ring.add_node("broker-0"), 'node "broker-0" is on the ring already'),
        (lambda: ring.remove_node("other"), 'node "other" is not on the ring'),
        (lambda: ring.add_node("x", weight=float("nan")), "weight NaN"),
        (lambda: ring.add_node("x", weight=1e9), "at most 1048576"),
        (lambda: ring.add_node(""), "1 to 255 bytes"),
        (lambda: ring.nodes_for("k", 0), "1 node or more"),
        (lambda: ring.place("t", 0), "1 to 65536"),
        (lambda: HashRing(["a", "a"]), 'node "a"'),
        (lambda: HashRing(virtual_nodes=0), "virtual_nodes is 0"),
        (lambda: HashRing(virtual_nodes=-1), "virtual_nodes is -1"),
        (lambda: ring.nodes_for("k", -1), "n is -1"),
        (lambda: ring.place("t", 2**32), "partitions is 4294967296"),
    ]
    for refused, text in refusals:
        with pytest.raises(InvalidArgumentError, match=text) as caught:
            refused()
        assert caught.value.code == "invalid.argument"
    assert ring.nodes == BROKERS


def test_a_key_or_node_of_another_type_is_a_type_error() -> None:
    ring = HashRing(BROKERS)
    with pytest.raises(TypeError, match="not int"):
        ring.node_for(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="in a list"):
        ring.node_for_each("GPU-1")
    with pytest.raises(TypeError, match="in a list"):
        HashRing("broker-0")


def test_members_may_change_while_other_threads_look_up() -> None:
    ring, done, failures = HashRing(BROKERS), threading.Event(), []
    keys = [f"GPU-{i}" for i in range(200)]
    before = ring.node_for_each(keys)

    def look_up() -> None:
        while not done.is_set():
            for key, owner in zip(keys, before, strict=True):
                if ring.node_for(key) not in (owner, "newcomer"):
                    failures.append(key)

    threads = [threading.Thread(target=look_up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        ring.add_node("newcomer")
        ring.remove_node("newcomer")
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ring.node_for_each(keys) == before


def test_a_ring_is_rebuilt_from_its_weights() -> None:
    ring = HashRing({"a": 1.0, "b": 2.5})
    again = HashRing(copy.copy(ring.weights), virtual_nodes=ring.virtual_nodes)
    keys = [str(i) for i in range(500)]
    assert ring.node_for_each(keys) == again.node_for_each(keys)
