"""The command line at a broker that asks for a token over TLS: each role in its terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.integration.cli_runs import LIBRARY, SERVICES, Cli
from tests.integration.guarded import ROOT, Client, guarded_broker
from tests.integration.service_processes import BrokerProcess

PRODUCER = Client("producer", produce=["telemetry"])
CONSUMER = Client("consumer", consume=["telemetry*"])

As = Callable[[Client], Cli]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[BrokerProcess]:
    server = authority.issue("server")
    arguments = ["--tls-cert-file", server.chain, "--tls-key-file", server.key]
    folder = tmp_path_factory.mktemp("broker")
    with guarded_broker(folder, ROOT, PRODUCER, CONSUMER, arguments=arguments) as process:
        yield process


@pytest.fixture(params=[LIBRARY, SERVICES], ids=["library", "services"])
def run_as(request: pytest.FixtureRequest, broker: BrokerProcess, authority: Authority) -> As:
    """The program as a client would have it: its token and the authority in the environment."""

    def of(client: Client) -> Cli:
        cli = Cli(f"grpcs://{broker.grpc}", request.param)
        cli.environment |= {"TELEMETRY_TOKEN": client.token, "TELEMETRY_CA_FILE": str(authority.certificate)}
        return cli

    return of


def test_each_role_does_its_part(run_as: As) -> None:
    root, producer, consumer = run_as(ROOT), run_as(PRODUCER), run_as(CONSUMER)
    root.ok("topic", "create", "telemetry", "--partitions", "1")
    root.ok("topic", "create", "private")
    assert producer.ok("produce", "telemetry", stdin="a\nb\n") == "stored 2 records in telemetry\n"
    assert consumer.ok("consume", "telemetry", "--group", "g") == "a\nb\n"
    assert [topic["topic"] for topic in consumer.objects("topic", "list", "--json")] == ["telemetry"]
    for refused, role in (
        (producer("topic", "create", "x"), "admin"),
        (producer("consume", "telemetry"), "consume"),
        (consumer("produce", "telemetry", stdin="c\n"), "produce"),
        (consumer("topic", "delete", "telemetry", "--yes"), "admin"),
        (consumer("group", "delete", "telemetry", "g", "--yes"), "admin"),
        (producer("produce", "private", stdin="c\n"), "produce"),
    ):
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "auth.denied" in refused.stderr
        assert f"`{role}`" in refused.stderr
    root.ok("topic", "delete", "telemetry", "--yes")
    root.ok("topic", "delete", "private", "--yes")


def test_without_a_good_token_or_trust_one_sentence_says_so(run_as: As, tmp_path: Path) -> None:
    cli = run_as(ROOT)
    token = tmp_path / "token"
    token.write_text("a-token-that-nobody-knows\n")
    wrong = cli("topic", "list", "--token-file", token)
    assert "auth.unauthenticated: the token is not known here" in wrong.stderr
    assert "a-token-that-nobody-knows" not in wrong.stderr
    token.write_text(ROOT.token)
    assert cli("topic", "list", "--token-file", token).returncode == 0
    stranger = Authority(tmp_path / "stranger")
    untrusted = cli("topic", "list", "--ca-file", stranger.certificate)
    assert "invalid peer certificate: UnknownIssuer" in untrusted.stderr
    del cli.environment["TELEMETRY_TOKEN"]
    assert "auth.unauthenticated: this server asks for a token" in cli("topic", "list").stderr
    for each in (wrong, untrusted):
        assert (each.returncode, each.stdout, each.stderr.count("\n")) == (2, "", 1)


def test_variables_for_other_brokers_do_not_close_the_way(run_as: As, tmp_path: Path) -> None:
    cli = run_as(ROOT)
    cli.ok("topic", "create", "t", "--broker", f"file://{tmp_path}/data")
    with BrokerProcess(tmp_path / "data") as plain:
        assert cli.objects("topic", "list", "--json", "--broker", plain.url)[0]["topic"] == "t"
