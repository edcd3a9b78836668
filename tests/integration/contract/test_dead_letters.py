"""Dead letters are listed with why and from where they came, page by page, and put back once."""

import pytest

import telemetry_broker as tb


def give_up(broker: tb.Broker, group: str, offsets: list[int], partition: int = 0) -> None:
    with broker.consumer("t", group, partitions=[partition]) as consumer:
        batch = consumer.receive()
        batch.nack(offsets=offsets, dead_letter=True, reason="not a number")
        batch.ack()


@pytest.fixture(autouse=True)
def topic(broker: tb.Broker) -> None:
    """Ten records in each of two partitions, of which nobody gave up any."""
    broker.create_topic("t", partitions=2)
    with broker.producer("t") as producer:
        for partition in range(2):
            for number in range(10):
                producer.send(b"%d" % number, key=b"k", partition=partition, headers={"h": b"1"}, timestamp_ns=7)
    assert producer.stored_records == 20


def test_a_topic_without_dead_letters_lists_none_and_redrives_none(broker: tb.Broker) -> None:
    assert broker.dead_letters("t") == tb.DeadLetters((), 0, None)
    assert broker.redrive("t") == 0
    for call in (broker.dead_letters, broker.redrive):
        with pytest.raises(tb.NotFoundError) as caught:
            call("nowhere")
        assert caught.value.code == "topic.not_found"


def test_a_dead_letter_says_why_and_from_where_it_came(broker: tb.Broker) -> None:
    give_up(broker, "g", [4])
    (letter,) = broker.dead_letters("t")
    described = broker.describe_topic("t").partitions[0]
    assert (letter.partition, letter.offset, letter.group) == (0, 0, "g")
    assert (letter.reason, letter.attempts) == ("not a number", 1)
    assert (letter.origin_log_id, letter.origin_offset) == (described.log_id, 4)
    assert (letter.value, letter.key, letter.headers, letter.timestamp_ns) == (b"4", b"k", {"h": b"1"}, 7)
    assert letter.time_ns > 0


def test_dead_letters_come_page_by_page_and_by_partition_and_group(broker: tb.Broker) -> None:
    give_up(broker, "g", [1, 2, 3])
    give_up(broker, "h", [5], partition=1)
    page = broker.dead_letters("t", max_records=2)
    assert ([letter.value for letter in page], len(page), page.total) == ([b"1", b"2"], 2, 4)
    rest = broker.dead_letters("t", start=page.next)
    assert ([letter.value for letter in rest], rest.next) == ([b"3", b"5"], None)
    assert [letter.value for letter in broker.dead_letters("t", group="h")] == [b"5"]
    assert [letter.value for letter in broker.dead_letters("t", partition=0)] == [b"1", b"2", b"3"]


def test_what_was_redriven_is_given_out_again_and_listed_no_more(broker: tb.Broker) -> None:
    give_up(broker, "g", [1, 2, 3])
    assert broker.redrive("t", offsets=[]) == 0
    assert broker.redrive("t", group="another") == 0
    with pytest.raises(tb.InvalidArgumentError, match="partition"):
        broker.redrive("t", offsets=[0])
    assert broker.redrive("t", partition=0, offsets=[2, 0]) == 2
    assert [letter.value for letter in broker.dead_letters("t")] == [b"2"]
    with broker.consumer("t", "g", partitions=[0]) as consumer:
        batch = consumer.receive()
        assert batch.values == [b"1", b"3"]
        batch.ack()
    assert broker.redrive("t") == 1
    assert broker.dead_letters("t").total == 0
