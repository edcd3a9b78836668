"""Roles: what each call needs, held against the protos and tried at a broker, call by call and role by role."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import telemetry_broker as tb
from telemetry_broker import _core
from telemetry_broker.v1 import broker_pb2 as pb
from telemetry_broker.v1 import collector_pb2, query_pb2
from tests.integration.guarded import ROLES, ROOT, Client, guarded_broker, shown, status_of_call
from tests.integration.service_processes import BrokerProcess, Service

SERVICES = [
    pb.DESCRIPTOR.services_by_name["BrokerService"],
    collector_pb2.DESCRIPTOR.services_by_name["CollectorService"],
]
METHODS = [method for service in SERVICES for method in service.methods]
REFUSED = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}

NOBODY = Client("nobody")
ONE_ROLE = {role: Client.of_role(role, role, "t") for role in ROLES}
EVERYWHERE = {role: Client.of_role(f"{role}-everywhere", role, "*") for role in ROLES}
ELSEWHERE = Client("elsewhere", ["other"], ["other*"], ["t2"])
EVERYBODY = [ROOT, NOBODY, ELSEWHERE, *ONE_ROLE.values(), *EVERYWHERE.values()]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    folder = tmp_path_factory.mktemp("roles")
    with guarded_broker(folder, *EVERYBODY, arguments=["--topics", "t:1,other:1"]) as process:
        yield process


@pytest.fixture(scope="module")
def channel(broker: BrokerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(broker.grpc) as channel:
        yield channel


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def request_of(method: MethodDescriptor) -> bytes:
    """The least request of a method that names the topic, where it has one."""
    if method.name == "Consume":
        receive = pb.ReceiveRequest(topic="t", group="g", consumer="c")
        return pb.ConsumeRequest(start=pb.ConsumeStart(receive=receive, credit_records=1)).SerializeToString()
    if method.name == "ProduceStream":
        return pb.ProduceStreamRequest(produce=pb.ProduceRequest(topic="t")).SerializeToString()
    request = message_factory.GetMessageClass(method.input_type)()
    field = method.input_type.fields_by_number.get(1)
    if field is not None and field.name in ("topic", "name"):
        setattr(request, field.name, "t")
    return request.SerializeToString()


def expected(client: Client, need: str) -> bool:
    """Whether a client may make a call on topic `t`, by what the table says that it needs."""
    roles = {role: list(getattr(client, role)) for role in ROLES}
    match need:
        case "nothing" | "a token":
            return True
        case "any role":
            return any("t" in topics or "*" in topics for topics in roles.values())
        case "produce" | "consume" | "admin":
            return bool({"t", "*"} & set(roles[need]))
        case "admin on *":
            return "*" in roles["admin"]
    raise AssertionError(need)


def test_every_call_of_the_protos_has_its_place_in_the_table_and_nothing_else_has() -> None:
    ours = {path_of(method) for method in METHODS}
    listed = set(_core.access_rules())
    assert ours <= listed
    queries = {path_of(method) for method in query_pb2.DESCRIPTOR.services_by_name["QueryService"].methods}
    # It asks for keys of its own: tests/integration/test_api_live.py.
    assert {_core.access_rules()[path] for path in queries} == {"nothing"}
    assert {path.split("/")[1] for path in listed - ours - queries} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_the_topic_of_each_call_that_needs_a_role_on_it_is_its_first_field() -> None:
    rules = _core.access_rules()
    on_topics = [method for method in METHODS if rules[path_of(method)] in ("any role", *ROLES)]
    assert on_topics
    for method in on_topics:
        if method.name not in ("Consume", "ProduceStream"):  # whose messages hold the request that has it
            assert method.input_type.fields_by_number[1].name in ("topic", "name"), method.name
    assert pb.ProduceRequest.DESCRIPTOR.fields_by_number[1].name == "topic"


@pytest.mark.parametrize("client", EVERYBODY, ids=lambda client: client.name)
def test_roles_times_methods(broker: BrokerProcess, channel: grpc.Channel, client: Client) -> None:
    rules = _core.access_rules()
    with tb.connect(broker.url, token=ROOT.token) as root:
        for method in SERVICES[0].methods:
            root.create_topic("t", partitions=1)  # somebody was allowed to delete it
            status = status_of_call(channel, path_of(method), request_of(method), client.token)
            allowed = expected(client, rules[path_of(method)])
            if method.name == "ProduceStream":
                continue  # answers inside the stream: see below
            assert (status not in REFUSED) == allowed, f"{method.name} by {client.name}: {status}"


@pytest.mark.parametrize("client", EVERYBODY, ids=lambda client: client.name)
def test_a_produce_stream_answers_each_message_by_its_own_topic(channel: grpc.Channel, client: Client) -> None:
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        f"/{SERVICES[0].full_name}/ProduceStream"
    )
    topics = ["t", "other", "t"]
    requests = [pb.ProduceStreamRequest(produce=pb.ProduceRequest(topic=topic)).SerializeToString() for topic in topics]
    answers = call(iter(requests), metadata=shown(client.token), timeout=10)
    refused = [pb.ProduceStreamResponse.FromString(answer).error.code == "auth.denied" for answer in answers]
    assert refused == [not {topic, "*"} & set(client.produce) for topic in topics]


@pytest.mark.parametrize("token", [None, "", "wrong-token-0123456789", f"{ROOT.token}x", ROOT.token[:-1]])
def test_without_a_valid_token_nothing_is_answered_but_probes(channel: grpc.Channel, token: str | None) -> None:
    for method in METHODS:
        assert status_of_call(channel, path_of(method), request_of(method), token) is grpc.StatusCode.UNAUTHENTICATED
    unknown = "/telemetry_broker.v1.BrokerService/Tomorrow"
    assert status_of_call(channel, unknown, b"", token) is grpc.StatusCode.UNAUTHENTICATED
    reflection = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    assert status_of_call(channel, path, reflection, token) is grpc.StatusCode.UNAUTHENTICATED
    health = health_pb2.HealthCheckRequest().SerializeToString()
    assert status_of_call(channel, "/grpc.health.v1.Health/Check", health, token) is grpc.StatusCode.OK


def test_reflection_is_for_everybody_with_a_token(channel: grpc.Channel) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    assert status_of_call(channel, path, request, NOBODY.token) is grpc.StatusCode.OK


def test_a_call_that_nobody_knows_is_for_who_may_everything(channel: grpc.Channel) -> None:
    path = "/telemetry_broker.v1.BrokerService/Tomorrow"
    assert status_of_call(channel, path, b"", ROOT.token) is grpc.StatusCode.UNIMPLEMENTED
    for client in EVERYBODY[1:]:
        assert status_of_call(channel, path, b"", client.token) is grpc.StatusCode.PERMISSION_DENIED


def test_topics_are_listed_to_who_has_a_role_on_them(broker: BrokerProcess) -> None:
    def listed(client: Client) -> list[str]:
        with tb.connect(broker.url, token=client.token) as connection:
            return [topic.name for topic in connection.topics()]

    with tb.connect(broker.url, token=ROOT.token) as root:
        for number in range(30):
            root.create_topic(f"other-{number:02}", partitions=1)
        everything = [topic.name for topic in root.topics()]
    assert listed(NOBODY) == []
    assert listed(ELSEWHERE) == [name for name in everything if name.startswith("other")]
    assert listed(EVERYWHERE["produce"]) == everything


@pytest.mark.parametrize(
    "name", ["../t", "t/../other", "t\x00", "t.dlq", "T", " t", "t ", "ｔ", "*", "t*", "%74", "..", "t\n"]
)
def test_no_name_of_a_topic_leads_out_of_a_role_or_a_folder(broker: BrokerProcess, name: str) -> None:
    with tb.connect(broker.url, token=ONE_ROLE["admin"].token) as client, pytest.raises(tb.PermissionDeniedError):
        client.create_topic(name)
    with tb.connect(broker.url, token=ROOT.token) as root:
        if name not in ("t.dlq", "T"):
            with pytest.raises(tb.InvalidArgumentError):
                root.create_topic(name)


def test_the_last_of_several_topics_in_a_request_is_the_one_that_counts(channel: grpc.Channel) -> None:
    """As every parser takes it: else the check would see one topic, and the call another."""
    allowed, other = pb.ReadRequest(topic="t").SerializeToString(), pb.ReadRequest(topic="other").SerializeToString()
    token = ONE_ROLE["consume"].token
    path = f"/{SERVICES[0].full_name}/Read"
    assert status_of_call(channel, path, allowed + other, token) is grpc.StatusCode.PERMISSION_DENIED
    assert status_of_call(channel, path, other + allowed, token) not in REFUSED
    path = f"/{SERVICES[0].full_name}/Produce"
    token = ONE_ROLE["produce"].token
    assert status_of_call(channel, path, allowed + other, token) is grpc.StatusCode.PERMISSION_DENIED


def test_a_lease_of_another_topic_is_of_no_use(broker: BrokerProcess) -> None:
    """A client that may consume one topic only cannot ack in another one with a lease id that it got to know."""
    with tb.connect(broker.url, token=ROOT.token) as root:
        root.create_topic("t", partitions=1)
        root.create_topic("other", partitions=1)
        with root.producer("other") as producer:
            producer.send(b"secret")
        root.create_group("t", "spy")
        receive = pb.ReceiveRequest(topic="other", group="spy", consumer="victim", max_records=1)
        with grpc.insecure_channel(broker.grpc) as channel:

            def call(method: str, request: bytes, token: str) -> bytes:
                unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                    f"/{SERVICES[0].full_name}/{method}"
                )
                return unary(request, metadata=shown(token), timeout=10)

            lease = pb.ReceiveResponse.FromString(call("Receive", receive.SerializeToString(), ROOT.token))
            lease_id = lease.deliveries[0].lease_id
            ack = pb.AckRequest(topic="t", group="spy", leases=[pb.LeaseRange(lease_id=lease_id)])
            try:
                acked = pb.AckResponse.FromString(call("Ack", ack.SerializeToString(), ONE_ROLE["consume"].token)).acked
            except grpc.RpcError:
                acked = 0
            assert acked == 0
        assert root.describe_group("other", "spy").partitions[0].lag == 1


# HTTP


def http(broker: BrokerProcess, method: str, path: str, token: str | None, **parameters: str) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    url = f"http://{broker.http}{path}"
    with httpx.stream(method, url, params=parameters, content=b"x", headers=headers, timeout=10) as answer:
        if answer.headers["content-type"] != "text/event-stream":
            answer.read()
        return answer


@pytest.mark.parametrize("client", EVERYBODY, ids=lambda client: client.name)
def test_roles_times_endpoints(broker: BrokerProcess, client: Client) -> None:
    with tb.connect(broker.url, token=ROOT.token) as root:
        root.create_topic("t", partitions=1)
    produced = http(broker, "POST", "/produce", client.token, topic="t")
    assert (produced.status_code == 200) == expected(client, "produce")
    consumed = http(broker, "GET", "/consume", client.token, topic="t", group="http")
    assert (consumed.status_code == 200) == expected(client, "consume")
    acked = http(broker, "POST", "/ack", client.token, topic="t", group="http")
    assert (acked.status_code == 400) == expected(client, "consume")  # the body names no event
    for answer in (produced, consumed, acked):
        assert answer.status_code in (200, 400) or (answer.status_code, answer.headers["telemetry-code"]) == (
            403,
            "auth.denied",
        )
    assert ("t" in http(broker, "GET", "/topics", client.token).json()) == expected(client, "any role")


def test_http_without_a_token(broker: BrokerProcess) -> None:
    for method, path in (("POST", "/produce"), ("GET", "/consume"), ("POST", "/ack"), ("GET", "/topics")):
        for token in (None, "wrong-token-0123456789"):
            answer = http(broker, method, path, token, topic="t", group="g")
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
    for path in ("/health", "/ready", "/metrics"):
        assert http(broker, "GET", path, None).status_code == 200


def test_http_takes_the_token_as_an_api_key_too(broker: BrokerProcess) -> None:
    answer = httpx.get(f"http://{broker.http}/topics", headers={"X-API-Key": ROOT.token})
    assert answer.status_code == 200


def test_http_anonymous_opens_just_the_four_endpoints(tmp_path: Path) -> None:
    with guarded_broker(tmp_path, ROOT, arguments=["--http-anonymous"]) as broker:
        assert http(broker, "POST", "/produce", None, topic="t").status_code == 200
        assert http(broker, "GET", "/consume", None, topic="t", group="g").status_code == 200
        assert http(broker, "POST", "/ack", None, topic="t", group="g").status_code == 400
        assert http(broker, "GET", "/topics", None).json() == {"t": [0, 1, 2, 3]}
        with tb.connect(broker.url) as client, pytest.raises(tb.UnauthenticatedError):
            client.topics()


def test_the_service_token_may_everything_at_every_service(tmp_path: Path) -> None:
    token = "a-service-token-0123456789"
    environment = {"SERVICE_TOKEN": token}
    with BrokerProcess(tmp_path / "data", environment=environment) as broker:
        collector = Service(
            "collector",
            *("--data", tmp_path / "collector", "--port", 0, "--grpc-port", 0, "--broker-url", broker.url),
            environment=environment,
        )
        with collector:
            address, side_port = collector.wait_for(r"Starting collector grpc=(\S+) http=(\S+)").groups()
            assert httpx.get(f"http://{side_port}/ready").status_code == 200, "it has asked the broker"
            with grpc.insecure_channel(address) as channel:
                path = "/telemetry_broker.v1.CollectorService/GetStatus"
                assert status_of_call(channel, path, b"", token) is grpc.StatusCode.OK
                assert status_of_call(channel, path, b"", None) is grpc.StatusCode.UNAUTHENTICATED
