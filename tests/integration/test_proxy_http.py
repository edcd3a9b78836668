"""What a proxy says over HTTP of itself and its brokers, and what of HTTP differs where there are several doors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

import telemetry_broker as tb
from tests.integration.guarded import ROOT, write_tokens
from tests.integration.service_processes import BrokerProcess, ProxyProcess, Service, eventually, listed
from tests.integration.sse_client import EventReader


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[tuple[BrokerProcess, BrokerProcess]]:
    with BrokerProcess(tmp_path / "0") as first, BrokerProcess(tmp_path / "1") as second:
        yield first, second


@pytest.fixture
def proxy(brokers: tuple[BrokerProcess, BrokerProcess]) -> Iterator[ProxyProcess]:
    with ProxyProcess("--brokers", listed(*brokers)) as process:
        yield process


def get(proxy: ProxyProcess, path: str) -> dict[str, Any]:
    response = httpx.get(f"http://{proxy.http}{path}", timeout=20)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def healthy(proxy: ProxyProcess) -> int:
    return int(get(proxy, "/health")["brokers_healthy"])


def produce(http: str, payload: str, partition: int = 0) -> str:
    response = httpx.post(f"http://{http}/produce?topic=t&partition={partition}", content=payload, timeout=20)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def test_health_counts_the_brokers_that_answer(
    proxy: ProxyProcess, brokers: tuple[BrokerProcess, BrokerProcess]
) -> None:
    eventually(lambda: healthy(proxy) == 2)
    health = get(proxy, "/health")
    assert (health["status"], health["service"], health["brokers_total"]) == ("healthy", "proxy", 2)
    assert isinstance(health["timestamp"], int)
    assert httpx.get(f"http://{proxy.http}/ready").json() == {"status": "ready"}
    brokers[0].kill()
    eventually(lambda: healthy(proxy) == 1)
    assert httpx.get(f"http://{proxy.http}/ready").status_code == 200
    brokers[1].kill()
    eventually(lambda: healthy(proxy) == 0)
    assert get(proxy, "/health")["status"] == "healthy"  # the process lives
    unready = httpx.get(f"http://{proxy.http}/ready")
    assert unready.status_code == 503
    assert "none of the brokers takes records" in unready.json()["reason"]
    assert "b-1" in unready.json()["reason"]


def test_status_has_the_shape_that_dashboards_know(
    proxy: ProxyProcess, brokers: tuple[BrokerProcess, BrokerProcess]
) -> None:
    for partition in range(4):
        produce(proxy.http, "1", partition)
    eventually(lambda: healthy(proxy) == 2)
    status = get(proxy, "/status")
    addresses = [broker.grpc for broker in brokers]
    config = status["proxy_config"]
    assert (config["broker_count"], config["broker_endpoints"], config["virtual_nodes"]) == (2, addresses, 150)
    assert status["broker_status"] == dict.fromkeys(addresses, True)
    first, second = (status["partition_distribution"][address] for address in addresses)
    assert (sorted(first + second), len(first), len(second)) == ([0, 1, 2, 3], 2, 2)
    assert isinstance(status["timestamp"], int)
    names = status["placement"]["t"]
    assert sorted(names) == ["b-0", "b-0", "b-1", "b-1"]
    assert [broker["name"] for broker in status["brokers"]] == ["b-0", "b-1"]
    assert {broker["breaker"] for broker in status["brokers"]} == {"closed"}


def test_stats_count_requests_and_what_became_of_them(
    proxy: ProxyProcess, brokers: tuple[BrokerProcess, BrokerProcess]
) -> None:
    for _ in range(3):
        produce(proxy.http, "1")
    httpx.post(f"http://{proxy.http}/produce?topic=t&partition=x", content="1")
    stats = get(proxy, "/stats")
    assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (4, 3, 1)
    assert stats["success_rate_percent"] == 75.0
    assert stats["request_breakdown"] == {"produce": 4, "consume": 0, "ack": 0, "topics": 0, "health": 0}
    assert stats["uptime_seconds"] > 0
    assert stats["requests_per_second"] > 0
    assert stats["average_latency_ms"] > 0
    distribution = stats["broker_distribution"]
    assert set(distribution["request_counts"]) == {broker.grpc for broker in brokers}
    assert set(distribution["error_counts"]) == {broker.grpc for broker in brokers}
    assert sum(distribution["request_counts"].values()) >= 3
    assert (distribution["healthy_count"], distribution["total_count"]) == (2, 2)
    assert set(stats["health_monitoring"]) == {"health_checks_performed", "broker_failures_detected"}
    assert isinstance(stats["timestamp"], int)


def test_metrics_are_there_by_their_names_and_the_log_says_what_went_where(proxy: ProxyProcess) -> None:
    eventually(lambda: healthy(proxy) == 2)
    produce(proxy.http, "1")
    page = httpx.get(f"http://{proxy.http}/metrics").text
    for line in (
        'broker_health_status{broker="b-0",service="proxy"} 1.0',
        'proxy_broker_health{broker="b-1",service="proxy"} 1.0',
        'proxy_broker_breaker{broker="b-0",service="proxy",state="closed"} 1.0',
        'proxy_broker_breaker{broker="b-0",service="proxy",state="open"} 0.0',
        'proxy_broker_draining{broker="b-0",service="proxy"} 0.0',
        'proxy_requests_total{request_type="produce",service="proxy",status="success"} 1.0',
        'proxy_request_duration_seconds_count{request_type="produce",service="proxy"} 1.0',
        'service_health{service="proxy"} 1.0',
    ):
        assert line in page
    for name in ("proxy_broker_requests_total", "proxy_health_checks_total", "broker_connections"):
        assert f"\n{name}{{" in page
    assert proxy.stop() == 0
    proxy.wait_for(r"Routing to broker broker=b-\d address=\S+ requests=\d+ failures=0")


def test_events_of_one_proxy_may_be_acked_at_another(brokers: tuple[BrokerProcess, BrokerProcess]) -> None:
    # Behind one address: a client's acks go over another connection than its stream, and so to any of the proxies.
    with ProxyProcess("--brokers", listed(*brokers)) as one, ProxyProcess("--brokers", listed(*brokers)) as other:
        with tb.connect(one.url) as client:
            client.create_topic("t", partitions=2)
            with client.producer("t") as producer:
                for number in range(300):
                    producer.send(b"%d" % number, partition=number % 2)
        seen: list[str] = []
        with EventReader(one.http, topic="t", group="g") as events, httpx.Client(timeout=20) as http:
            while len(seen) < 300:  # three times as many as a stream has that are not acked
                (event,) = events.take(1)
                seen.append(event.payload)
                acked = http.post(f"http://{other.http}/ack?topic=t&group=g", json={"id": event.id})
                assert acked.text == "ok"
        assert sorted(map(int, seen)) == list(range(300))
        with tb.connect(other.url) as client:
            assert client.describe_group("t", "g").lag == 0


def test_a_client_that_gives_up_its_stream_again_and_again_misses_nothing(tmp_path: Path) -> None:
    # The clients in the field end their stream after 60 s whatever it does, and begin another one: in the middle of
    # events, some of them not acked. Those come again once their leases have ended.
    leases = {"VISIBILITY_TIMEOUT": "1s"}
    with ExitStack() as stack:
        one, two = (stack.enter_context(BrokerProcess(tmp_path / name, environment=leases)) for name in ("0", "1"))
        proxy = stack.enter_context(ProxyProcess("--brokers", listed(one, two)))
        http = stack.enter_context(httpx.Client(timeout=60))
        sent = {str(number) for number in range(90)}
        for payload in sorted(sent):
            produce(proxy.http, payload, int(payload) % 2)
        acked: set[str] = set()
        given_up: set[str] = set()
        while len(acked) < len(sent):
            with EventReader(proxy.http, topic="t", group="g") as events:
                for place in range(30):
                    event = events.read()
                    assert event is not None
                    if place % 10 == 9 and event.payload not in given_up:
                        given_up.add(event.payload)  # it was at work on this one
                        continue
                    answer = http.post(f"http://{proxy.http}/ack?topic=t&group=g", json={"id": event.id})
                    if answer.status_code == 200:
                        assert event.payload not in acked
                        acked.add(event.payload)
                    if len(acked) == len(sent):
                        break
        assert acked == sent
        assert len(given_up) > 5
        with tb.connect(proxy.url) as client:
            assert client.describe_group("t", "g").lag == 0


def test_a_broker_that_dies_takes_no_record_with_it_that_was_stored(tmp_path: Path) -> None:
    # As the clients in the field do it: a record after the other, each tried three times, and a stream that is opened
    # again when it ends.
    stored: set[str] = set()
    with BrokerProcess(tmp_path / "0") as one, ExitStack() as stack:
        two = stack.enter_context(BrokerProcess(tmp_path / "1"))
        port = int(two.grpc.rpartition(":")[2])
        proxy = stack.enter_context(ProxyProcess("--brokers", listed(one, two)))

        def send(http: httpx.Client, payload: str, partition: int) -> None:
            for _ in range(3):
                answer = http.post(
                    f"http://{proxy.http}/produce", params={"topic": "t", "partition": partition}, content=payload
                )
                if answer.status_code == 200:
                    stored.add(payload)
                    return
                assert answer.status_code in (500, 503), answer.text

        with httpx.Client(timeout=60) as http:
            for number in range(120):
                if number == 40:
                    two.kill()
                if number == 80:
                    stack.enter_context(BrokerProcess(tmp_path / "1", grpc_port=port))
                send(http, str(number), number % 4)
            assert len(stored) >= 110  # what was on its way at the kill may be given up
            seen: set[str] = set()
            while not stored <= seen:
                with EventReader(proxy.http, topic="t", group="g") as events:
                    while not stored <= seen and (event := events.read()) is not None:
                        body = {"id": event.id}
                        if http.post(f"http://{proxy.http}/ack?topic=t&group=g", json=body).text == "ok":
                            seen.add(event.payload)


def test_a_file_of_brokers_is_taken_up_when_it_changes(
    tmp_path: Path, brokers: tuple[BrokerProcess, BrokerProcess]
) -> None:
    file = tmp_path / "brokers"
    file.write_text(f"# the first one\nb-0={brokers[0].grpc}\n")
    with ProxyProcess("--brokers-file", file) as proxy:
        assert get(proxy, "/health")["brokers_total"] == 1
        file.write_text(f"b-0={brokers[0].grpc}\nb-1={brokers[1].grpc}  # the second one\n")
        proxy.wait_for(r'The brokers changed brokers=2 new=b-1 gone=""')
        assert get(proxy, "/health")["brokers_total"] == 2
        metric = 'security_files_current{files="brokers",service="proxy"}'
        assert f"{metric} 1.0" in httpx.get(f"http://{proxy.http}/metrics").text
        file.write_text("b-0=nowhere\n")
        proxy.wait_for(r"The brokers changed and cannot be used, so the last good ones stay: .*no address such as")
        assert get(proxy, "/health")["brokers_total"] == 2
        assert f"{metric} 0.0" in httpx.get(f"http://{proxy.http}/metrics").text
        file.write_text(f"b-1={brokers[1].grpc}\n")
        proxy.wait_for(r'The brokers changed brokers=1 new="" gone=b-0')
        page = httpx.get(f"http://{proxy.http}/metrics").text
        assert 'proxy_broker_health{broker="b-0"' not in page
        assert 'proxy_broker_health{broker="b-1"' in page
        assert produce(proxy.http, "1") == "0.0"


def test_what_is_odd_about_the_brokers_is_said(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker:
        _, port = broker.grpc.rsplit(":", 1)
        members = f"one={broker.grpc},two=localhost:{port},three=nowhere.invalid:9090"
        with ProxyProcess("--brokers", members, environment={"BROKER_COUNT": "2", "MAX_PARTITIONS": "4"}) as proxy:
            proxy.wait_for(r"the address of a broker is not known .* broker=three address=nowhere.invalid:9090")
            proxy.wait_for(r"brokers (one|two) \(.*\) and (one|two) \(.*\) answer as one and the same broker")
            proxy.wait_for(r"BROKER_COUNT is not the number of brokers that are listed.* broker_count=2 brokers=3")
            proxy.wait_for(r"MAX_PARTITIONS is accepted and changes nothing")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "it lists no broker"),
        (b"# nobody\n\n", "it lists no broker"),
        (b"\xff", "not text in UTF-8"),
        (b"a:1\na:1\n", "'a:1' is listed twice"),
        (b"x=a:1\ny=a:1\n", "'a:1' is the address of two brokers"),
    ],
)
def test_a_file_that_lists_no_good_brokers_keeps_the_proxy_from_starting(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "brokers"
    if content is not None:
        file.write_bytes(content)
    with Service("proxy", "--port", 0, "--grpc-port", 0, "--brokers-file", file) as proxy:
        assert proxy.wait() == 2
        assert f"BROKERS_FILE={file}: " in proxy.output
        assert reason in proxy.output


def test_the_pods_of_a_stateful_set_are_known_by_their_names() -> None:
    with ProxyProcess(environment={"BROKER_SERVICE": "q.invalid", "BROKER_COUNT": "3"}) as proxy:
        status = get(proxy, "/status")
        assert list(status["broker_status"]) == [f"q-{number}.q.invalid:9090" for number in range(3)]
        assert [broker["name"] for broker in status["brokers"]] == ["q-0", "q-1", "q-2"]


def test_a_proxy_asks_who_comes_and_shows_itself_to_the_brokers(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.toml", ROOT)
    shared = {"SERVICE_TOKEN": "the-token-of-the-services"}
    with ExitStack() as stack:
        one, two = (stack.enter_context(BrokerProcess(tmp_path / name, environment=shared)) for name in ("0", "1"))
        proxy = stack.enter_context(
            ProxyProcess("--brokers", listed(one, two), "--tokens-file", tokens, "--http-anonymous", environment=shared)
        )
        # The four endpoints are open to the older system's clients; what tells of the brokers is not.
        assert produce(proxy.http, "1") == "0.0"
        for path in ("/status", "/stats"):
            assert httpx.get(f"http://{proxy.http}{path}").status_code == 401
            shown = httpx.get(f"http://{proxy.http}{path}", headers={"Authorization": f"Bearer {ROOT.token}"})
            assert shown.status_code == 200
        assert httpx.get(f"http://{proxy.http}/health").status_code == 200
        with tb.connect(proxy.url) as nobody, pytest.raises(tb.UnauthenticatedError):
            nobody.topics()
        with tb.connect(proxy.url, token=ROOT.token) as known:
            assert [topic.name for topic in known.topics()] == ["t"]


def test_a_stop_ends_the_streams(proxy: ProxyProcess) -> None:
    produce(proxy.http, "0")
    with EventReader(proxy.http, topic="t", group="g") as events:
        assert events.take(1)[0].payload == "0"
        assert proxy.stop() == 0
        assert events.read() is None  # a whole answer: its last chunk came
