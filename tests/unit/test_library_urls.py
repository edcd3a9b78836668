"""What ``connect`` takes, and what it says to the rest."""

from pathlib import Path

import pytest

import telemetry_broker as tb
from telemetry_broker.testing import ManualClock


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "it has no scheme"),
        ("/var/lib/telemetry", "it has no scheme"),
        ("http://localhost:9090", "it begins with http:"),
        ("file://./data", "needs three slashes and its whole path, such as file:///"),
        ("file://data/x", "needs three slashes"),
        ("file:data", "needs three slashes"),
        ("file:///data?queue_size=3", r"it takes no \? or #"),
        ("mem:///name", "takes a name, not a path"),
        ("grpc://", "the host is missing"),
        ("grpc://host:port", "Port could not be cast"),
        ("grpc://host:99999", "Port out of range"),
        ("grpc://host:1/path", "a host and a port, nothing else"),
        ("grpc://user@host:1", "a host and a port, nothing else"),
        ("grpc+unix://run/broker.sock", "needs three slashes"),
        ("grpc://[::1", "Invalid IPv6 URL"),
        ("grpc://one:9090,two:9090/path", "hosts and ports, nothing else"),
        ("grpc://one:9090,=two:9090", "has no name in front of the ="),
        ("grpc://one:9090,,two:9090", "the host is missing"),
    ],
)
def test_what_names_no_broker_is_refused_with_what_would(url: str, said: str) -> None:
    with pytest.raises(tb.InvalidArgumentError, match=said) as caught:
        tb.connect(url)
    assert caught.value.code == "invalid.url"
    accepted = (
        "mem://, mem://name, file:///path, grpc://host:port, grpc://host:port,host:port (several brokers), "
        "grpc+dns://name:port, grpcs://host:port (TLS) or grpc+unix:///path"
    )
    assert caught.value.message.endswith(f"Give {accepted}")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("grpc://one:9090,one:9090", "is given twice"),
        ("grpc://a=one:9090,a=two:9090", 'broker "a" is given twice'),
        ("grpc://a=one:9090,b=one:9090", 'two brokers are given at "one:9090"'),
    ],
)
def test_a_broker_that_is_named_twice_is_told(url: str, said: str) -> None:
    with pytest.raises(tb.InvalidArgumentError, match=said):
        tb.connect(url)


def test_a_name_that_does_not_resolve_is_told() -> None:
    with pytest.raises(tb.UnavailableError, match=r"nowhere\.invalid does not resolve"):
        tb.connect("grpc+dns://nowhere.invalid:9090")


@pytest.mark.parametrize("url", ["nats://localhost:4222"])
def test_what_this_version_does_not_know_is_unsupported(url: str) -> None:
    with pytest.raises(tb.UnsupportedError, match="this version"):
        tb.connect(url)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("grpc://broker", "broker:9090"),
        ("grpc://broker:7000/", "broker:7000"),
        ("grpc://[::1]:7000", "[::1]:7000"),
        ("grpc+unix:///run/a%20b.sock", "unix:/run/a b.sock"),
    ],
)
def test_a_remote_url_names_an_address_and_connects_to_nothing_yet(url: str, target: str) -> None:
    from urllib.parse import urlsplit

    from telemetry_broker.connection import _target

    assert _target(url, urlsplit(url)) == target
    with tb.connect(url) as broker:
        assert broker.url == url


def test_a_remote_broker_takes_no_options() -> None:
    with pytest.raises(tb.InvalidArgumentError, match="has its own settings"):
        tb.connect("grpc://localhost", partitions=2)


@pytest.mark.parametrize(
    "options", [{"queue_size": 0}, {"queue_size": -1}, {"partitions": 0}, {"visibility_timeout": 0.0}]
)
def test_options_out_of_bounds_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(tb.InvalidArgumentError):
        tb.connect("mem://", **options)  # type: ignore[arg-type] # values of several types


def test_options_become_defaults_of_topics() -> None:
    with tb.connect("mem://", partitions=3, visibility_timeout=1.5, durability="fsync") as broker:
        config = broker.create_topic("t").config
        assert (config.partitions, config.visibility_timeout, config.durability) == (3, 1.5, "fsync")


def test_mem_without_a_name_is_private() -> None:
    with tb.connect("mem://") as one, tb.connect("mem://") as other:
        one.create_topic("t")
        assert other.topics() == []


def test_mem_with_a_name_is_shared_until_the_last_one_closes_it() -> None:
    one, other = tb.connect("mem://shared"), tb.connect("mem://shared")
    one.create_topic("t")
    assert [topic.name for topic in other.topics()] == ["t"]
    one.close()
    one.close()
    with pytest.raises(tb.ClosedError):
        one.topics()
    assert len(other.topics()) == 1
    with pytest.raises(tb.InvalidArgumentError, match="with other options"):
        tb.connect("mem://shared", clock=ManualClock())
    other.close()
    with tb.connect("mem://shared") as anew:
        assert anew.topics() == []


def test_a_path_may_hold_any_sign(tmp_path: Path) -> None:
    with tb.connect(f"file://{tmp_path}/a%20b%3Fc%23d/e") as broker:
        broker.create_topic("t")
    assert (tmp_path / "a b?c#d" / "e").is_dir()


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(tb.BrokerError):
        tb.connect(f"file://{tmp_path}/file")
