"""Keys, roles, cookies, limits, headers, and what hostile clients send."""

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from telemetry_services.api.access import COOKIE
from telemetry_services.api.session import OneTimeTokens
from tests.integration.up_process import KEY, READ_KEY, UTIL, Up, line, running_up, send, wait_for_gpus

POINT = {"uuid": "GPU-1", "metric": UTIL, "value": 1}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    limits = {"API_RATE_LIMIT": "200/second", "API_REFUSED_LIMIT": "40/minute", "CORS_ORIGINS": "https://board.example"}
    with running_up(tmp_path_factory.mktemp("up"), environment=limits) as up:
        send(up.grpc, [line(1, 1)])
        wait_for_gpus(up, 1)
        yield up


def test_a_key_may_do_what_its_roles_say(up: Up) -> None:
    calls = [
        ("GET", "/api/v1/gpus", None, "read"),
        ("POST", "/telemetry", POINT, "write"),
        ("POST", "/api/v1/pipeline/redrive", {"topic": "telemetry"}, "admin"),
        ("POST", "/api/v1/pipeline/seek", {"topic": "telemetry", "group": "none", "to": "end"}, "admin"),
        ("POST", "/api/v1/pipeline/pause", {"paused": False}, "admin"),
    ]
    with up.client(READ_KEY) as reader, up.client() as everything:
        for method, path, body, role in calls:
            answer = reader.request(method, path, json=body)
            if role == "read":
                assert answer.status_code == 200
            else:
                assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
                assert f'the key "reader" may not do this: that takes the role {role}' in answer.json()["message"]
            assert everything.request(method, path, json=body).status_code not in (401, 403)


def test_keys_are_rotated_while_it_runs_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    with running_up(tmp_path) as up, up.client("the-next-key-01234") as client:
        assert client.get("/api/v1/gpus").status_code == 401
        keys = tmp_path / "keys.toml"
        good = keys.read_text().replace(KEY, "the-next-key-01234")
        keys.write_text("[[key]")
        up.service.wait_for("The api keys changed and cannot be used, so the last good ones stay")
        assert up.get("/api/v1/gpus").status_code == 200
        keys.write_text(good)
        up.service.wait_for("Reloaded the api keys")
        assert client.get("/api/v1/gpus").status_code == 200
        assert up.get("/api/v1/gpus").status_code == 401
        assert "the-next-key-01234" not in up.service.output
        up.service.wait_for(r"Refused a request address=127.0.0.1 key=- method=GET path=/api/v1/gpus status=401")


def test_the_page_keeps_the_key_in_a_cookie_that_only_its_own_pages_can_use(up: Up) -> None:
    with httpx.Client(base_url=up.url) as page:
        assert page.post("/api/v1/session", json={"key": "wrong"}).status_code == 401
        answer = page.post("/api/v1/session", json={"key": KEY})
        assert answer.json() == {"name": "all", "roles": ["admin", "read", "write"]}
        cookie = answer.headers["set-cookie"]
        assert re.search(rf"^{COOKIE}={KEY}; HttpOnly; Max-Age=\d+; Path=/; SameSite=strict$", cookie)
        assert page.get("/api/v1/gpus").status_code == 200
        pause = {"paused": False}
        for headers in ({}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            refused = page.post("/api/v1/pipeline/pause", json=pause, headers=headers)
            assert (refused.status_code, refused.json()["error"]) == (403, "forbidden.origin")
        for headers in ({"Origin": up.url}, {"Sec-Fetch-Site": "same-origin"}):
            assert page.post("/api/v1/pipeline/pause", json=pause, headers=headers).status_code == 200
        assert page.delete("/api/v1/session").status_code == 204
        assert page.get("/api/v1/gpus").status_code == 401


def test_the_link_that_up_prints_logs_in_once(tmp_path: Path) -> None:
    with running_up(tmp_path, environment={"API_KEYS_FILE": ""}) as up, httpx.Client() as browser:
        (link,) = up.service.wait_for(r"^page (\S+login\?token=\S+)").groups()
        first = browser.get(link)
        assert (first.status_code, first.headers["location"]) == (303, "/")
        assert browser.get(f"{up.url}/api/v1/session").json()["name"] == "api"
        assert httpx.get(link).headers["location"] == "/#/login?expired"
        assert "set-cookie" not in httpx.get(link).headers


def test_one_time_tokens_end_with_their_time() -> None:
    tokens = OneTimeTokens(seconds=0)
    assert tokens.take(tokens.make("key")) is None
    tokens = OneTimeTokens()
    token = tokens.make("key")
    assert (tokens.take(token), tokens.take(token), tokens.take("")) == ("key", None, None)


def test_too_many_requests_are_told_when_to_try_again_and_wrong_keys_are_not_answered_for_ever(tmp_path: Path) -> None:
    limits = {"API_RATE_LIMIT": "100/hour", "API_REFUSED_LIMIT": "5/hour"}
    with running_up(tmp_path, environment=limits) as up:
        with up.client("wrong") as wrong:
            statuses = [wrong.get("/api/v1/gpus").status_code for _ in range(8)]
            assert statuses == [401] * 5 + [429] * 3
        with up.client(READ_KEY) as client, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.get("/api/v1/hosts"), range(120)))
        assert answers[0].status_code == 200
        assert {answer.status_code for answer in answers} == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        body, headers = refused.json(), refused.headers
        assert (body["error"], int(headers["retry-after"]) > 1) == ("rate_limited", True)
        assert re.fullmatch(r'"(key|address)";q=100;w=3600', headers["ratelimit-policy"])
        assert re.fullmatch(r'"(key|address)";r=0;t=\d+', headers["ratelimit"])


def test_other_pages_may_ask_only_where_they_are_named(up: Up) -> None:
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-api-key"}
    good = httpx.options(f"{up.url}/api/v1/gpus", headers={"Origin": "https://board.example", **asked})
    assert good.headers["access-control-allow-origin"] == "https://board.example"
    assert "access-control-allow-credentials" not in good.headers
    bad = httpx.options(f"{up.url}/api/v1/gpus", headers={"Origin": "https://evil.example", **asked})
    assert "access-control-allow-origin" not in bad.headers


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/api/v1/gpus", "/swagger/", "/nowhere", "/health"])
def test_every_answer_tells_browsers_what_it_may_do(up: Up, path: str) -> None:
    headers = up.get(path).headers
    policy = headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe-inline" not in policy.replace("style-src 'self' 'unsafe-inline'", "" if "swagger" in path else "?")
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    assert headers["referrer-policy"] == "no-referrer"


def test_no_page_has_a_script_or_a_style_inside(up: Up) -> None:
    for path in ("/", "/swagger/"):
        page = up.get(path).text
        assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
        assert "<style" not in page
        assert re.findall(r"\son\w+=", page) == []
        assert "://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize("path", ["/web/../app.py", "/web/..%2f..%2fapp.py", "/web/%2e%2e/cli/main.py", "/web/none.js"])
def test_only_files_of_the_page_are_given(up: Up, path: str) -> None:
    address = urlsplit(up.url)
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert client.makefile("rb").readline().split()[1] == b"404"


@pytest.mark.parametrize(
    "text",
    [
        "' OR 1=1 --",
        '"; DROP TABLE gpu; --',
        "$gpu",
        "%00",
        "../../etc/passwd",
        "a\r\nSet-Cookie: x=1",
        "\u202e",
        "𝕏" * 300,
    ],
)
def test_names_are_names_and_never_sql_paths_or_headers(up: Up, text: str) -> None:
    with up.client() as client:
        answers = [
            client.get("/api/v1/gpus", params={"hostname": text}),
            client.get("/api/v1/query", params={"id": text, "start": "-1h", "metric": UTIL}),
            client.get("/api/v1/query", params={"namespace": text, "start": "-1h", "window": "1m"}),
            client.get(f"/api/v1/gpus/{httpx.QueryParams({'x': text})!s:.900}/telemetry"),
            client.get("/api/v1/query", params={"metric": text, "start": "-1h"}),
        ]
        for answer in answers:
            assert answer.status_code in (200, 400, 404), answer.text
            assert "set-cookie" not in answer.headers
            if answer.status_code == 200 and "count" in answer.json():
                assert answer.json()["count"] == 0
        assert client.get("/api/v1/gpus").json()["count"] >= 1


def test_bodies_are_bounded(up: Up) -> None:
    with up.client() as client:
        huge = client.post(
            "/telemetry", content=b"[" + b" " * (17 << 20) + b"]", headers={"Content-Type": "application/json"}
        )
        assert (huge.status_code, huge.json()["error"]) == (413, "request.too_large")
        deep = client.post("/telemetry", content=b"[" * 100_000, headers={"Content-Type": "application/json"})
        assert deep.status_code == 400
        assert client.get("/api/v1/gpus", params=[("id", str(number)) for number in range(1100)]).status_code == 400


def test_a_client_that_sends_its_head_drop_by_drop_is_cut_off(up: Up) -> None:
    address = urlsplit(up.url)
    with socket.create_connection((address.hostname, address.port)) as slow:
        slow.sendall(b"GET /api/v1/gpus HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        slow.settimeout(30)
        begun = time.monotonic()
        try:
            received = slow.recv(100)
        except ConnectionError:
            received = b""
        assert received == b""
        assert time.monotonic() - begun < 30
