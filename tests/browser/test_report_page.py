"""The report as a reader meets it: opened from disk, with no network, sorted, filtered, slid and by keyboard."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from record_on_disk import HOSTILE, make_sweep

from sweep.record.facts import read_record
from sweep.record.report import write_report

MAX_READY_MS = 2000


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 trials, 36 of them with 51 images each: 1,836 (of the first 40 every ninth diverged)."""
    sweep_dir = make_sweep(tmp_path_factory.mktemp("big") / "results", num_trials=100, num_steps=60, num_sheets=40)
    return write_report(read_record(sweep_dir))


@pytest.fixture
def page(browser: Any, big: Path) -> Any:
    browser.set_window_size(1400, 1000)
    browser.get(big.as_uri())
    return browser


def rows(page: Any) -> list[int]:
    found = page.find_elements("css selector", "#table tbody tr")
    return [int(row.get_attribute("data-trial")) for row in found]


def errors(page: Any) -> list[str]:
    return [line["message"] for line in page.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]


def show(page: Any, part: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    page.execute_script(f"document.getElementById('{part}').scrollIntoView({{behavior: 'instant'}})")
    if part in ("tradeoff", "settings", "curves"):
        WebDriverWait(page, 20).until(lambda p: p.find_elements("css selector", f"#{part} .js-plotly-plot .main-svg"))


def test_it_opens_from_disk_within_two_seconds(page: Any) -> None:
    ready = int(page.execute_script("return document.documentElement.dataset.ready"))
    loaded = page.execute_script("return performance.timing.loadEventEnd - performance.timing.navigationStart")
    print(f"100 trials: ready after {ready} ms, loaded after {loaded} ms")
    assert len(rows(page)) == 100
    assert ready < MAX_READY_MS and loaded < MAX_READY_MS


def test_every_plot_is_drawn_without_an_error_or_a_request(page: Any) -> None:
    for part in ("tradeoff", "settings", "curves", "images", "copies"):
        show(page, part)
    assert errors(page) == []
    names = page.execute_script("return performance.getEntriesByType('resource').map((r) => r.name)")
    assert [name for name in names if not name.startswith(("data:", "blob:"))] == []


def test_settings_are_drawn_in_each_way_there_is(page: Any) -> None:
    show(page, "settings")
    kinds = page.execute_script("return [...document.querySelectorAll('#settings-kind option')].map((o) => o.value)")
    drawn = ("const t = document.getElementById('plot-settings').data;"
             "return [t[0].type ?? 'scatter', t[0].mode, t.length]")
    for kind, wanted in (("0,1", ["heatmap", None, 1]), ("0", ["scatter", "markers", 1]),
                         ("parallel", ["scatter", "lines+markers", 89])):
        assert kind in kinds
        page.execute_script("const e = document.getElementById('settings-kind'); e.value = arguments[0];"
                            "e.dispatchEvent(new Event('input'))", kind)
        assert page.execute_script(drawn) == wanted
    assert errors(page) == []


def test_a_files_long_name_is_wrapped_and_does_not_widen_the_table(page: Any) -> None:
    wide = "return Math.max(...[...document.querySelectorAll('#table tbody td:last-child')].map((c) => c.offsetWidth))"
    assert page.execute_script(wide) < 180


def test_hostile_text_is_shown_and_not_run(page: Any) -> None:
    for part in ("tradeoff", "settings", "curves", "copies"):
        show(page, part)
    page.find_element("css selector", "tr[data-trial='9'] td button").click()
    assert HOSTILE in page.find_element("id", "details").text
    assert HOSTILE in page.find_element("id", "grid").text
    assert HOSTILE in page.find_element("id", "copy-pairs").text
    assert page.execute_script("return window.hacked") is None


def test_a_heading_sorts_both_ways_by_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    heading = page.find_element("css selector", "th[data-name='likeness'] button")
    heading.send_keys(Keys.ENTER)
    down = rows(page)
    values = page.execute_script("""return [...document.querySelectorAll("#table tbody tr")].map(
        (row) => data.trials.find((t) => t.number === Number(row.dataset.trial)).axes.likeness?.[0] ?? null)""")
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True) and values[:len(known)] == known, "unknown ones come last"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    up = rows(page)
    assert down[0] != up[0] and set(down) == set(up)
    assert page.find_element("css selector", "th[data-name='likeness']").get_attribute("aria-sort") == "ascending"


def test_the_filter_narrows_the_table_and_the_plots(page: Any) -> None:
    show(page, "tradeoff")
    points = "return document.getElementById('plot-tradeoff').data.at(-1).x.length"
    before = page.execute_script(points)
    page.find_element("id", "filter").send_keys("network_dim=64 likeness>0.5")
    shown = rows(page)
    assert 0 < len(shown) < 100
    assert page.execute_script("return shownTrials().every((t) => t.settings.network_dim === 64"
                               " && t.axes.likeness[0] > 0.5)")
    assert page.execute_script(points) == len(shown) < before
    page.find_element("id", "filter").clear()
    page.find_element("id", "filter").send_keys("diverged")
    assert rows(page) == [n for n in range(1, 101) if n % 9 == 0]


def slide(page: Any, name: str, value: int) -> None:
    page.execute_script("const e = document.getElementById(arguments[0]); e.value = arguments[1];"
                        "e.dispatchEvent(new Event('input'));", name, value)


def tiles(page: Any) -> list[str]:
    return page.execute_script("return [...document.querySelectorAll('#grid .tile')]"
                               ".map((t) => t.style.backgroundImage)")


def test_the_sliders_change_checkpoint_and_strength(page: Any) -> None:
    show(page, "images")
    page.execute_script("document.getElementById('strength').value = 2")
    slide(page, "checkpoint", 0)
    first = tiles(page)
    assert first and "step 20" in page.find_element("id", "checkpoint-text").text
    slide(page, "checkpoint", 2)
    last = tiles(page)
    assert set(first).isdisjoint(last)
    slide(page, "strength", 0)
    weak = tiles(page)
    assert weak and set(weak).isdisjoint(last) and page.find_element("id", "strength-text").text == "0.6"


def test_columns_can_be_the_checkpoints_or_strengths_of_one_trial(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    show(page, "images")
    for heads in (["step 20", "step 40", "step 60"], ["strength 0.6", "strength 0.8", "strength 1"]):
        page.find_element("id", "x-axis").send_keys(Keys.ARROW_DOWN)
        shown = page.execute_script("return [...document.querySelectorAll('#grid thead th')].map((t) => t.innerText)")
        assert all(any(text.startswith(head) for text in shown) for head in heads), shown
        assert tiles(page)


def shown_scores(page: Any) -> list[str]:
    return page.execute_script("return [...document.querySelectorAll('#grid td .under')].map((t) => t.innerText)")


def test_each_image_has_its_own_scores_beneath(page: Any) -> None:
    show(page, "images")
    page.execute_script("document.getElementById('x-axis').value = 'trials';"
                        "document.getElementById('strength').value = 2")
    slide(page, "checkpoint", 2)
    assert shown_scores(page)[0].startswith("likeness 0.0") and len(shown_scores(page)) == len(tiles(page))
    assert not page.find_element("id", "guidance-label").is_displayed(), "there is one guidance only"


def test_guidance_is_an_axis_where_there_are_several(browser: Any, tmp_path: Path) -> None:
    sweep_dir = make_sweep(tmp_path / "results", num_trials=2, num_steps=6, guidance_scales=(3.0, 5.0))
    browser.set_window_size(1400, 1000)
    browser.get(write_report(read_record(sweep_dir)).as_uri())
    show(browser, "images")
    slide(browser, "strength", 1)
    assert browser.find_element("id", "guidance-text").text == "7", "the sampler's own at first"
    own = tiles(browser)
    slide(browser, "guidance", 0)
    other = tiles(browser)
    assert other and set(own).isdisjoint(other)
    assert "0.8 and guidance 3" in browser.find_element("id", "grid").text
    browser.execute_script("document.getElementById('x-axis').value = 'guidances'")
    slide(browser, "guidance", 0)
    heads = browser.execute_script("return [...document.querySelectorAll('#grid thead th')].map((t) => t.innerText)")
    assert [head.split("\n")[0] for head in heads[1:]] == ["guidance 3", "guidance 5", "guidance 7"]
    assert len(set(tiles(browser))) >= 3 and not browser.find_element("id", "guidance-label").is_displayed()
    assert browser.find_elements("css selector", "th[data-name='guidance']") and errors(browser) == []


def test_a_prompt_says_what_it_is_there_for(page: Any) -> None:
    show(page, "images")
    page.execute_script("document.getElementById('strength').value = 1")
    slide(page, "checkpoint", 2)
    shown = page.execute_script("return [...document.querySelectorAll('#grid th.prompt')].map((t) => t.innerText)")
    assert "no trigger: photo of a man, portrait (1000)" in shown and "bare trigger: alexq man (1000)" in shown
    assert any(text.startswith("training caption: photo of alexq man") for text in shown)
    assert any(text.startswith("photo of alexq man, prompt 0") for text in shown)


def test_a_ticked_trial_becomes_a_column(page: Any) -> None:
    count = "return document.querySelectorAll('#grid thead th').length"
    before = page.execute_script(count)
    page.find_element("css selector", "tr[data-trial='50'] input").click()
    assert page.execute_script(count) == before + 1


def test_the_copy_report_stands_beside_its_photos(page: Any) -> None:
    show(page, "copies")
    pairs = page.find_elements("css selector", "#copy-pairs figure")
    assert len(pairs) == 24
    assert pairs[0].find_elements("css selector", ".tile")
    assert pairs[0].find_element("css selector", "img").size["width"] == 120
    assert page.execute_script("return [...document.querySelectorAll('#copies img')].every((i) => i.naturalWidth > 0)")
    assert page.find_elements("css selector", "#attract figure")


def test_dark_and_light_have_enough_contrast(page: Any) -> None:
    for is_dark in (False, True):
        page.execute_script("setTheme(arguments[0])", is_dark)
        pair = page.execute_script("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
        assert _contrast(*pair) > 7


def test_a_phone_sees_no_sideways_scrolling(page: Any) -> None:
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2,
                                                                 "mobile": True})
    try:
        for part in ("trials", "tradeoff", "settings", "curves", "images", "copies", "asked"):
            show(page, part)
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390
        assert page.execute_script("return document.querySelector('#plot-tradeoff svg').clientWidth") <= 390
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_screenshots(browser: Any, big: Path) -> None:
    """Written where REPORT_SHOTS says, to be looked at; of the report that REPORT names, if it does."""
    page, folder = browser, os.environ.get("REPORT_SHOTS")
    if folder is None:
        pytest.skip("REPORT_SHOTS names no folder")
    page.get(Path(os.environ.get("REPORT", big)).resolve().as_uri())
    for name, width, is_dark in (("desktop", 1400, False), ("desktop-dark", 1400, True), ("phone", 390, False)):
        shoot(page, Path(folder) / f"{name}.png", width, is_dark)


def shoot(page: Any, path: Path, width: int, is_dark: bool) -> None:
    import base64

    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.execute_script("setTheme(arguments[0])", is_dark)
    for part in ("tradeoff", "settings", "curves", "images", "copies"):
        show(page, part)
    page.execute_script("redrawPlots(); window.scrollTo(0, 0)")
    shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(shot["data"]))
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def _contrast(front: str, back: str) -> float:
    """WCAG 2.2's contrast ratio of two `rgb(r, g, b)`."""
    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in colour[colour.index("(") + 1:-1].split(",")[:3]]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    light, dark = sorted((luminance(front), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_ratings_page_goes_on_by_keyboard(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    from sweep.record.rate import rating_server
    from sweep.record.ratings import read_ratings

    sweep_dir = make_sweep(tmp_path / "results", num_trials=2, num_steps=6, num_checkpoints=1)
    server = rating_server(sweep_dir, 0, seed=1)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        browser.get(server.address)
        for number, key in enumerate((Keys.ARROW_LEFT, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)):
            WebDriverWait(browser, 20).until(
                lambda p, n=number: p.find_element("id", "count").text.startswith(f"{n} answered"))
            assert browser.execute_script("return document.getElementById('image-left').naturalWidth") > 0
            browser.find_element("css selector", "body").send_keys(key)
        WebDriverWait(browser, 20).until(lambda p: p.find_element("id", "count").text.startswith("3 answered"))
        assert [row["choice"] for row in read_ratings(sweep_dir)] == ["left", "same", "right"]
        assert HOSTILE in browser.find_element("id", "prompt").text and errors(browser) == []
    finally:
        server.shutdown()
        server.server_close()


def test_the_live_report_comes_back_with_what_the_reader_set(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    from sweep.record.notes import add_note
    from sweep.record.serve import live_server

    sweep_dir = make_sweep(tmp_path / "results", num_trials=4, num_steps=6)
    server = live_server(sweep_dir, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        browser.get(server.address)
        browser.find_element("id", "filter").send_keys("network_dim=8")
        assert len(rows(browser)) == 1
        browser.execute_script("window.isOld = true")
        WebDriverWait(browser, 20).until(lambda p: p.execute_script("return performance.getEntriesByType('resource')"
                                                                     ".some((r) => r.name.endsWith('/version'))"))
        add_note(sweep_dir, "seen while it runs")
        WebDriverWait(browser, 20).until(lambda p: p.execute_script("return !window.isOld && !!window.document.body"))
        WebDriverWait(browser, 20).until(lambda p: "seen while it runs" in p.find_element("id", "choices").text)
        assert browser.find_element("id", "filter").get_attribute("value") == "network_dim=8"
        assert len(rows(browser)) == 1
    finally:
        server.shutdown()
        server.server_close()
