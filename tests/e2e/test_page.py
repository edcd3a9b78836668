"""The page in a real browser (Debian's Chromium), against a running `telemetry up`."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from telemetry_services.api.access import COOKIE
from tests.conftest import require_tool
from tests.integration.up_process import KEY, READ_KEY, Up, line, running_up, send, wait_for_gpus

GPUS = 24
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """24 GPUs on 3 hosts that report, one that has been silent for long, and a record that nobody can decode."""
    with running_up(tmp_path_factory.mktemp("up")) as up:
        send(up.grpc, [line(24, 1, time_ns=1_700_000_000_000_000_000), b"no line protocol"])
        send(up.grpc, [line(gpu, gpu * 4) for gpu in range(GPUS)])
        wait_for_gpus(up, GPUS)
        yield up


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = require_tool("chromium", "apt-get install -y chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Browser, up: Up, path: str = "/", key: str | None = KEY, **options: Any) -> Page:
    """A page in a context of its own; what goes wrong in it fails the test."""
    context = browser.new_context(**{"viewport": DESKTOP, "color_scheme": "light", **options})
    context.set_default_timeout(20_000)
    if key:
        context.add_cookies([{"name": COOKIE, "value": key, "url": up.url}])
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(f"the page failed: {error}"))
    page.on("console", lambda message: _check_policy(message.text))
    page.goto(up.url + path)
    return page


def _check_policy(text: str) -> None:
    assert "Content Security Policy" not in text, text


def test_the_browser_is_told_with_the_page_of_every_module_that_it_asks_for(browser: Browser, up: Up) -> None:
    page = open_page(browser, up)
    expect(page.get_by_text("GPUs reporting")).to_be_visible()
    asked = page.evaluate("performance.getEntriesByType('resource').map((entry) => new URL(entry.name).pathname)")
    modules = [path for path in asked if path.endswith(".js") and path != "/web/theme.js"]
    told = re.findall(r"<([^>]+)>; rel=modulepreload", page.request.get(up.url).headers["link"])
    assert sorted(modules) == sorted(told)  # each once
    page.context.close()


VIEWS = {
    "/": "GPUs reporting",
    "/#/fleet?look=table": "Last seen",
    "/#/gpu/GPU-0003": "nvidia3",
    "/#/groups/host": "Utilisation of each GPU",
    "/#/groups/namespace/training": "GPU utilisation",
    "/#/pipeline": "Consumer groups",
    "/#/pipeline/dead-letters/telemetry": "no line protocol",
    "/#/login": "API key",
}


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible_and_fits(browser: Browser, up: Up, size: dict[str, int], scheme: str) -> None:
    page = open_page(browser, up, viewport=size, color_scheme=scheme)
    for path, text in VIEWS.items():
        page.goto(up.url + path)
        expect(page.locator("main")).to_contain_text(text)
        found = Axe().run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
        width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert width <= 0, f"{path} is {width} px wider than the window"
    page.context.close()


def test_the_fleet_in_one_look_and_a_gpu_by_a_click_or_a_key(browser: Browser, up: Up) -> None:
    send(up.grpc, [line(gpu, gpu * 4) for gpu in range(GPUS)])  # who sent nothing for a minute would be silent
    page = open_page(browser, up)
    expect(page.locator(".total.gpus dd").first).to_have_text(str(GPUS))
    expect(page.locator(".total.silent dd").first).to_have_text("1")
    expect(page.locator(".total.util dd").first).to_have_text("46 %")
    grid = page.locator("canvas.overlay")
    box = grid.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 10, box["y"] + 27)
    expect(page.locator(".tip")).to_contain_text("host-00 · nvidia0")
    expect(page.locator(".tip")).to_contain_text("training / job-0")
    grid.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator("[aria-live=polite]")).to_contain_text("host-00 · nvidia1, GPU utilisation 4 %")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"#/gpu/GPU-0001$"))
    expect(page.locator("h1")).to_contain_text("nvidia1")
    page.context.close()


def test_a_filter_a_metric_and_a_look_have_an_address(browser: Browser, up: Up) -> None:
    page = open_page(browser, up)
    page.get_by_label("Filter").fill("host-02")
    expect(page.locator(".total.gpus .note")).to_have_text("of 8 on 1 host")
    page.get_by_label("Colour by").select_option("DCGM_FI_DEV_GPU_TEMP")
    page.get_by_role("button", name="Table").click()
    expect(page.locator("tbody tr").first).to_contain_text("host-02 · nvidia7")
    address = page.url
    assert "q=host-02" in address
    other = open_page(browser, up)
    other.goto(address)
    expect(other.locator("tbody tr")).to_have_count(8)
    expect(other.get_by_label("Colour by")).to_have_value("DCGM_FI_DEV_GPU_TEMP")
    page.get_by_label("Filter").fill("nothing is called so")
    expect(page.locator("main")).to_contain_text("No GPU matches the filter")
    page.get_by_role("button", name="Clear the filter").click()
    expect(page.locator("tbody tr")).to_have_count(GPUS + 1)
    other.context.close()
    page.context.close()


def test_what_is_produced_is_painted(browser: Browser, up: Up) -> None:
    page = open_page(browser, up, "/#/gpu/GPU-0010")
    cell = page.locator('[data-metric="DCGM_FI_DEV_GPU_UTIL"] dd')
    expect(cell).to_have_text("40 %")
    expect(page.locator("#live")).to_contain_text("Live")
    send(up.grpc, [line(10, 73)])
    expect(cell).to_have_text("73 %")
    send(up.grpc, [line(10, 40)])
    expect(cell).to_have_text("40 %")
    expect(page.locator(".chart canvas.overlay").first).to_have_attribute("aria-label", re.compile("from 40 % to 73 %"))
    page.context.close()


def test_a_zoom_has_an_address_and_the_download_is_csv(browser: Browser, up: Up) -> None:
    page = open_page(browser, up, "/#/gpu/GPU-0003?range=15m")
    plot = page.locator(".chart canvas.overlay").first
    expect(plot).to_have_attribute("aria-label", re.compile("latest 12 %"))
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 60, steps=4)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"start=.*&end="))
    page.get_by_role("button", name="Back to live").click()
    expect(page).to_have_url(re.compile(r"#/gpu/GPU-0003\?$|#/gpu/GPU-0003\?metric"))
    with page.expect_download() as download:
        page.get_by_role("link", name="Download CSV").click()
    text = download.value.path().read_text()
    assert text.startswith("device_id,metric,value,time,")
    assert "DCGM_FI_DEV_GPU_UTIL" in text
    page.context.close()


def test_the_key_is_asked_for_once(browser: Browser, up: Up) -> None:
    page = open_page(browser, up, "/#/groups/host", key=None)
    page.get_by_label("Key", exact=True).fill("wrong")
    page.get_by_role("button", name="Open the fleet").click()
    expect(page.get_by_role("alert")).to_have_text("This key is not valid. Copy it as it is.")
    page.get_by_label("Key", exact=True).fill(KEY)
    page.get_by_role("button", name="Open the fleet").click()
    expect(page).to_have_url(re.compile("#/groups/host$"))
    expect(page.locator("main")).to_contain_text("host-01")
    assert page.evaluate("document.cookie") == ""
    page.reload()
    expect(page.locator("main")).to_contain_text("host-01")
    page.get_by_role("button", name="Forget the API key").click()
    expect(page.get_by_label("Key", exact=True)).to_be_visible()
    page.context.close()


def test_a_dead_letter_is_looked_at_and_put_back_by_who_may(browser: Browser, up: Up) -> None:
    reader = open_page(browser, up, "/#/pipeline/dead-letters/telemetry", key=READ_KEY)
    expect(reader.locator(".letter")).to_contain_text("no line protocol")
    expect(reader.locator(".letter button")).to_be_disabled()
    expect(reader.locator(".letters")).to_contain_text("it needs the role admin")
    reader.context.close()
    page = open_page(browser, up, "/#/pipeline/dead-letters/telemetry")
    (before,) = dead_letters(up)
    with page.expect_response("**/redrive") as answer:
        page.locator(".letter button").click()
    assert answer.value.json() == {"redriven": 1}
    # The collector cannot decode it this time either, and gives it up again, as another dead letter.
    while not (letters := dead_letters(up)):
        page.wait_for_load_state()
    assert [letter["value"] for letter in letters] == [before["value"]]
    assert letters[0]["offset"] > before["offset"]
    page.context.close()


def dead_letters(up: Up) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = up.get("/api/v1/pipeline/dead-letters?topic=telemetry").json()["letters"]
    return found


def test_a_theme_that_was_chosen_stays(browser: Browser, up: Up) -> None:
    page = open_page(browser, up)
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Change between light and dark").click()
    dark = page.evaluate(background)
    assert light != dark
    page.reload()
    assert page.evaluate(background) == dark
    page.context.close()


def test_nothing_is_asked_of_other_machines(browser: Browser, up: Up) -> None:
    page = open_page(browser, up, key=KEY)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in VIEWS:
        page.goto(up.url + path)
        page.wait_for_load_state("load")
    assert asked
    assert [url for url in asked if not url.startswith((up.url, "data:", "blob:"))] == []
    page.context.close()


def test_an_empty_fleet_and_an_unknown_gpu_say_what_to_do(
    browser: Browser, up: Up, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = open_page(browser, up, "/#/gpu/nobody")
    expect(page.locator("main")).to_contain_text("there is no GPU called 'nobody'")
    page.context.close()
    with running_up(tmp_path_factory.mktemp("empty")) as empty:
        page = open_page(browser, empty)
        expect(page.locator("main")).to_contain_text("No GPU has reported yet")
        expect(page.locator("main")).to_contain_text("telemetry streamer --csv dump.csv")
        send(empty.grpc, [line(1, 1)])
        expect(page.locator(".total.gpus dd").first).to_have_text("1")
        page.context.close()
