"""TLS at both ports: who is trusted, certificates that change, files that cannot be used, open ports."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest

import telemetry_broker as tb
from tests.certificates import Authority, Pair
from tests.integration.guarded import ROOT, guarded_broker, shown, write_tokens
from tests.integration.service_processes import BrokerProcess, Service

RELOADED = "Reloaded the certificates"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue("server")


@pytest.fixture(scope="module")
def client(authority: Authority) -> Pair:
    return authority.issue("client")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody here trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


def tls(pair: Pair, client_ca: Path | None = None) -> list[object]:
    """A service's options."""
    options: list[object] = ["--tls-cert-file", pair.chain, "--tls-key-file", pair.key]
    return options if client_ca is None else [*options, "--tls-client-ca-file", client_ca]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, server: Pair) -> Iterator[BrokerProcess]:
    with guarded_broker(tmp_path_factory.mktemp("tls"), ROOT, arguments=tls(server)) as process:
        yield process


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, server: Pair, authority: Authority) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("mutual") / "data", *tls(server, authority.certificate)) as process:
        yield process


def secure(broker: BrokerProcess) -> str:
    return f"grpcs://{broker.grpc}"


def refusal(url: str, **files: Path) -> str:
    """Why a client is not served; empty when it is."""
    with tb.connect(url, token=ROOT.token, **files) as connection:  # type: ignore[arg-type]
        try:
            connection.topics()
        except tb.UnavailableError as error:
            return error.message
    return ""


def test_a_client_that_trusts_the_authority_comes_in(broker: BrokerProcess, authority: Authority) -> None:
    for host in ("127.0.0.1", "localhost"):
        url = secure(broker).replace("127.0.0.1", host)
        with tb.connect(url, token=ROOT.token, ca_file=authority.certificate) as connection:
            connection.topics()


def test_another_grpc_library_comes_in(broker: BrokerProcess, authority: Authority) -> None:
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    with grpc.secure_channel(broker.grpc, credentials) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/telemetry_broker.v1.BrokerService/ListTopics"
        )
        call(b"", metadata=shown(ROOT.token), timeout=10)


def test_who_does_not_trust_it_or_speaks_plain_text_is_told(broker: BrokerProcess, stranger: Authority) -> None:
    assert "invalid peer certificate: UnknownIssuer" in refusal(secure(broker), ca_file=stranger.certificate)
    assert refusal(broker.url)


def test_a_name_that_is_not_in_the_certificate_is_refused(broker: BrokerProcess, authority: Authority) -> None:
    url = secure(broker).replace("127.0.0.1", "ip6-localhost")
    assert refusal(url, ca_file=authority.certificate)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_of_tls_are_refused(broker: BrokerProcess, authority: Authority) -> None:
    for address in (broker.grpc, broker.http):
        host, _, port = address.rpartition(":")
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.minimum_version = ssl.TLSVersion.TLSv1
        with socket.create_connection((host, int(port)), timeout=10) as plain, pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname=host)


def test_http_speaks_tls_too(broker: BrokerProcess, authority: Authority, stranger: Authority) -> None:
    trusts = ssl.create_default_context(cafile=str(authority.certificate))
    assert httpx.get(f"https://{broker.http}/health", verify=trusts).status_code == 200
    headers = {"Authorization": f"Bearer {ROOT.token}"}
    assert httpx.get(f"https://{broker.http}/topics", verify=trusts, headers=headers).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"https://{broker.http}/health", verify=ssl.create_default_context(cafile=str(stranger.certificate)))
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://{broker.http}/health")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_both_versions_of_tls_are_spoken_and_ended_as_they_are_to_be(
    broker: BrokerProcess, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    host, _, port = broker.grpc.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=False) as encrypted,
    ):
        assert encrypted.selected_alpn_protocol() == "h2"
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5):
            encrypted.sendall(bytes([byte]))
        settings = encrypted.recv(9)
        assert settings[3:4] == b"\x04"
        encrypted.sendall(b"\x00\x00\x01\x04\x00\x00\x00\x00\x00\xff")  # of a length that settings cannot have
        while encrypted.recv(4096):  # an end without a word would be an error here
            pass


@pytest.mark.parametrize("piece", [1_000, 16_405, 100_000], ids=str)
def test_records_of_tls_are_put_together_however_they_come(
    broker: BrokerProcess, authority: Authority, piece: int
) -> None:
    values = [bytes([number % 251]) * (number * 977 % 60_000) for number in range(400)]
    topic = f"pieces-{piece}"
    with (
        in_pieces(broker.grpc, piece) as address,
        tb.connect(f"grpcs://{address}", token=ROOT.token, ca_file=authority.certificate) as connection,
    ):
        connection.create_topic(topic, partitions=1)
        with connection.producer(topic) as producer:
            producer.send_many(values)
        with connection.consumer(topic, "g", idle_timeout=10) as consumer:
            found: list[bytes] = []
            for batch in consumer:
                found += batch.values
                batch.ack()
                if len(found) >= len(values):
                    break
    assert found == values


@contextlib.contextmanager
def in_pieces(target: str, piece: int) -> Iterator[str]:
    """An address that leads to another one, and passes on so many bytes at a time, at most."""
    host, _, port = target.rpartition(":")

    def passes(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(piece):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(2) as threads,
        contextlib.ExitStack() as stack,
    ):

        def accept() -> None:
            near = stack.enter_context(listener.accept()[0])
            far = stack.enter_context(socket.create_connection((host, int(port))))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threads.submit(passes, far, near)
            passes(near, far)

        threads.submit(accept)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


# Mutual TLS


def test_with_mutual_tls_a_certificate_is_all_that_is_asked_for(
    mutual: BrokerProcess, authority: Authority, client: Pair
) -> None:
    files = {"ca_file": authority.certificate, "cert_file": client.chain, "key_file": client.key}
    assert not refusal(secure(mutual), **files)


def test_without_a_certificate_of_the_authority_nobody_comes_in(
    mutual: BrokerProcess, authority: Authority, stranger: Authority
) -> None:
    foreign = stranger.issue("client")
    assert refusal(secure(mutual), ca_file=authority.certificate)
    assert refusal(secure(mutual), ca_file=authority.certificate, cert_file=foreign.chain, key_file=foreign.key)


def test_with_mutual_tls_probes_are_open_over_http_and_all_else_is_not(
    mutual: BrokerProcess, authority: Authority, stranger: Authority, client: Pair
) -> None:
    trusts = ssl.create_default_context(cafile=str(authority.certificate))
    for path in ("/health", "/ready", "/metrics"):
        assert httpx.get(f"https://{mutual.http}{path}", verify=trusts).status_code == 200
    refused = httpx.post(f"https://{mutual.http}/produce?topic=h", content=b"1", verify=trusts)
    assert (refused.status_code, "certificate" in refused.text) == (401, True)
    foreign = stranger.issue("client")
    trusts.load_cert_chain(foreign.chain, foreign.key)
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"https://{mutual.http}/produce?topic=h", content=b"1", verify=trusts)
    trusts.load_cert_chain(client.chain, client.key)
    assert httpx.post(f"https://{mutual.http}/produce?topic=h", content=b"1", verify=trusts).status_code == 200


def test_the_rest_api_asks_for_a_certificate_and_the_key(
    tmp_path: Path, authority: Authority, server: Pair, client: Pair
) -> None:
    arguments = ["--data", tmp_path / "data", "--port", 0, "--grpc-port", 0, "--no-csv"]
    key = "an-api-key"
    with Service("up", *arguments, *tls(server, authority.certificate), environment={"API_KEY": key}) as up:
        address = up.wait_for(r"API https://(\S+)")[1]
        url = f"https://{address}/api/v1/gpus"
        trusts = ssl.create_default_context(cafile=str(authority.certificate))
        assert httpx.get(url, verify=trusts, headers={"X-API-Key": key}).status_code == 401
        trusts.load_cert_chain(client.chain, client.key)
        assert httpx.get(url, verify=trusts).status_code == 401
        assert httpx.get(url, verify=trusts, headers={"X-API-Key": key}).status_code == 200


# Changes


def _files(folder: Path, pair: Pair) -> Pair:
    """A copy of certificate and key, to be changed."""
    folder.mkdir()
    copies = Pair(folder / "tls.pem", folder / "tls.key")
    shutil.copy(pair.chain, copies.chain)
    shutil.copy(pair.key, copies.key)
    return copies


def serial(address: str, authority: Authority) -> int:
    """Of the certificate that a port shows."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=str(authority.certificate))
    plain = socket.create_connection((host, int(port)), timeout=10)
    with context.wrap_socket(plain, server_hostname=host) as encrypted:
        return int(str((encrypted.getpeercert() or {})["serialNumber"]), 16)


def test_changed_certificates_are_shown_to_new_connections_and_old_ones_stay(
    tmp_path: Path, authority: Authority, server: Pair
) -> None:
    files = _files(tmp_path / "files", server)
    with BrokerProcess(tmp_path / "data", *tls(files)) as broker:
        before = [serial(address, authority) for address in (broker.grpc, broker.http)]
        with tb.connect(secure(broker), ca_file=authority.certificate) as connection:
            connection.topics()
            fresh = authority.issue("fresh")
            for source, target in ((fresh.chain, files.chain), (fresh.key, files.key)):
                copy = target.with_suffix(".new")
                shutil.copy(source, copy)
                copy.replace(target)
            broker.wait_for(RELOADED)
            connection.topics()
        after = [serial(address, authority) for address in (broker.grpc, broker.http)]
        assert before[0] == before[1] != after[0] == after[1]


@pytest.mark.parametrize("broken", ["key of another", "garbage", "gone"])
def test_certificates_that_break_leave_the_last_good_ones_and_say_so(
    tmp_path: Path, authority: Authority, server: Pair, broken: str
) -> None:
    files = _files(tmp_path / "files", server)
    with BrokerProcess(tmp_path / "data", *tls(files)) as broker:
        before = [serial(address, authority) for address in (broker.grpc, broker.http)]
        match broken:
            case "key of another":
                shutil.copy(authority.issue("another").key, files.key)
            case "garbage":
                files.chain.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
            case "gone":
                files.key.unlink()
        said = broker.wait_for(r"The certificates changed and cannot be used, so the last good ones stay: (.*)")[1]
        assert str(files.key if broken != "garbage" else files.chain) in said
        assert [serial(address, authority) for address in (broker.grpc, broker.http)] == before
        with tb.connect(secure(broker), ca_file=authority.certificate) as connection:
            connection.topics()


def test_a_client_authority_that_changes_lets_in_its_clients_only(
    tmp_path: Path, authority: Authority, server: Pair, client: Pair, stranger: Authority
) -> None:
    trusted = tmp_path / "clients.pem"
    shutil.copy(authority.certificate, trusted)
    with BrokerProcess(tmp_path / "data", *tls(server, trusted)) as broker:
        other = stranger.issue("other")

        def comes_in(pair: Pair) -> bool:
            files = {"ca_file": authority.certificate, "cert_file": pair.chain, "key_file": pair.key}
            return not refusal(secure(broker), **files)

        assert (comes_in(client), comes_in(other)) == (True, False)
        shutil.copy(stranger.certificate, trusted)
        broker.wait_for(RELOADED)
        assert (comes_in(client), comes_in(other)) == (False, True)


# What is refused at start


def refused_start(tmp_path: Path, *arguments: object, environment: dict[str, str] | None = None) -> str:
    """What a broker says that does not start, and leaves no folder behind."""
    data = tmp_path / "data"
    with Service(
        "broker", "--data", data, "--port", 0, "--grpc-port", 0, *arguments, environment=environment
    ) as broker:
        assert broker.wait() == 2
        assert not data.exists()
        return broker.output


def test_files_that_cannot_be_used_are_refused_at_start(tmp_path: Path, authority: Authority, server: Pair) -> None:
    another = authority.issue("another")
    missing, garbage = tmp_path / "missing.pem", tmp_path / "garbage.pem"
    garbage.write_text("nonsense")
    cases: list[tuple[list[object], str]] = [
        (tls(Pair(missing, server.key)), f"TLS_CERT_FILE={missing}: the file cannot be read (No such file"),
        (tls(Pair(server.chain, missing)), f"TLS_KEY_FILE={missing}: the file cannot be read"),
        (tls(Pair(tmp_path, server.key)), f"TLS_CERT_FILE={tmp_path}: the file cannot be read (Is a directory)"),
        (tls(Pair(garbage, server.key)), "there is no BEGIN CERTIFICATE in it"),
        (tls(Pair(server.chain, garbage)), "the private key (PEM) cannot be used"),
        (tls(Pair(server.chain, another.key)), "give PEM files that belong together"),
        (tls(server, garbage), "the certificates of the clients' authority cannot be used"),
        (["--tls-cert-file", server.chain], "TLS_KEY_FILE is not set"),
        (["--tls-key-file", server.key], "TLS_CERT_FILE is not set"),
        (["--tls-client-ca-file", authority.certificate], "TLS_CERT_FILE is not set"),
        (["--tokens-file", missing], f"TOKENS_FILE={missing}: the file cannot be read"),
        (["--service-token-file", garbage], "16 to 512 visible ASCII"),
        (["--service-token-file", missing], f"{missing}: the file cannot be read"),
    ]
    with ThreadPoolExecutor(2) as pool:
        folders = [tmp_path / str(number) for number in range(len(cases))]
        said = pool.map(lambda folder, case: refused_start(folder, *case[0]), folders, cases)
        for output, (arguments, expected) in zip(said, cases, strict=True):
            assert expected in output, f"{arguments}: {output}"
            assert output.startswith("telemetry: config.invalid: "), output


def test_ports_that_let_in_everybody_are_refused_beyond_the_loopback(
    tmp_path: Path, authority: Authority, server: Pair
) -> None:
    reachable: list[object] = ["--host", "0.0.0.0"]
    for not_enough in ([], tls(server)):
        said = refused_start(tmp_path, *reachable, *not_enough)
        assert "HOST is '0.0.0.0', which other machines can reach" in said
        assert "TOKENS_FILE, SERVICE_TOKEN_FILE or TLS_CLIENT_CA_FILE" in said
    tokens = write_tokens(tmp_path / "tokens.toml", ROOT)
    enough: list[list[object]] = [["--insecure"], ["--tokens-file", tokens], tls(server, authority.certificate)]
    for number, arguments in enumerate(enough):
        with BrokerProcess(tmp_path / f"data-{number}", *reachable, *arguments) as broker:
            assert broker.stop() == 0


def test_a_tls_client_is_told_of_arguments_that_do_not_fit(authority: Authority, client: Pair, tmp_path: Path) -> None:
    for url, arguments, expected in (
        ("grpc://localhost", {"ca_file": authority.certificate}, "is without TLS, and ca_file are for it"),
        ("grpcs://localhost", {"cert_file": client.chain}, "key_file is missing"),
        ("grpcs://localhost", {"key_file": client.key}, "cert_file is missing"),
        ("grpcs://localhost", {"ca_file": tmp_path / "none"}, r"ca_file '.*none' cannot be read"),
        ("grpc://localhost", {"token": "a", "token_file": "b"}, "both token and token_file"),
        ("grpc://localhost", {"token": "two words"}, "the token cannot be sent"),
        ("grpc://localhost", {"token": ""}, "the token cannot be sent"),
        ("grpc://localhost", {"token_file": tmp_path / "none"}, "the token file .*none cannot be used"),
        ("mem://", {"token": "a"}, "is in this process"),
        (f"file://{tmp_path}/data", {"token": "a"}, "is in this process"),
    ):
        with pytest.raises(tb.InvalidArgumentError, match=expected):
            tb.connect(url, **arguments)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    with pytest.raises(tb.InvalidArgumentError, match="the client's certificate"):
        tb.connect("grpcs://localhost", ca_file=authority.certificate, cert_file=garbage, key_file=client.key)


# Attacks


def test_who_connects_and_says_nothing_or_too_slowly_is_put_out_and_others_are_served(
    broker: BrokerProcess, authority: Authority
) -> None:
    """Slow loris on both ports: no handshake, half of one, and no request or half of one inside of TLS."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    slow: list[socket.socket] = []
    try:
        host, _, port = broker.grpc.rpartition(":")
        for said in (b"", b"\x16\x03\x01\x02\x00\x01"):
            plain = socket.create_connection((host, int(port)), timeout=50)
            plain.sendall(said)
            slow.append(plain)
        host, _, port = broker.http.rpartition(":")
        for said in (b"", b"POST /produce?topic=t HTTP/1.1\r\nHost: localhost\r\nX-Slow: "):
            plain = socket.create_connection((host, int(port)), timeout=50)
            encrypted = context.wrap_socket(plain, server_hostname=host)
            encrypted.sendall(said)
            slow.append(encrypted)
        with tb.connect(secure(broker), token=ROOT.token, ca_file=authority.certificate) as connection:
            connection.topics()
        for connection_put_out in slow:
            with contextlib.suppress(OSError):  # a reset is an end, too
                while connection_put_out.recv(4096):
                    pass
    finally:
        for each in slow:
            each.close()


def test_more_connections_than_may_be_are_closed_at_once_and_are_counted(tmp_path: Path) -> None:
    arguments = ["--max-connections", 5, "--topics", "t:1"]
    with BrokerProcess(tmp_path / "data", *arguments) as broker:
        host, _, port = broker.grpc.rpartition(":")
        held = [socket.create_connection((host, int(port)), timeout=10) for _ in range(5)]
        further = socket.create_connection((host, int(port)), timeout=10)
        with further, contextlib.suppress(ConnectionResetError):
            assert further.recv(1) == b""
        metrics = httpx.get(f"http://{broker.http}/metrics").text
        assert 'broker_refused_total{reason="connections",service="broker"} 1.0' in metrics
        for connection in held:
            connection.close()
        with tb.connect(broker.url) as client, client.consumer("t", group="g") as consumer:
            assert not consumer.receive(wait=5)  # sits it out until the broker has seen them go
