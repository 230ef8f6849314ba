"""Test that the report renders in a browser without errors, and that its controls work."""

import json
import pathlib
import re
import shutil

import pytest
from PIL import Image

from support.images import synthetic_image
from support.paths import ROOT
from support.skips import BROWSERS
from vaecodec.cli import benchmark, main

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (the test extra has it)")
PUBLISHED = ROOT / "benchmarks" / "published" / "kodak.csv"


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> pathlib.Path:
    """A report of two peers, one lossless codec, published curves, a gallery and a start-up table."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(1, 25):
        Image.fromarray(synthetic_image(64, 80, n)).save(folder / f"kodim{n:02}.png")
    out = tmp_path_factory.mktemp("out")
    table = {"about": "Best of 5.", "columns": ["what", "seconds"], "rows": [["</script><b>import</b>", 0.0123]]}
    (out / "startup.json").write_text(json.dumps(table))
    line = ["bench", str(folder), "-o", str(out), "--quiet", "--codecs", "jpeg,webp,png", "--metrics", "psnr"]
    line += ["--published", str(PUBLISHED), "--qualities", "jpeg=10,30,60,90", "--qualities", "webp=5,30,60,90"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "KODAK_PIXELS", 64 * 80)
        assert main([*line, "--show-bpp", "1,2"]) == 0
    return out / "report.html"


def test_the_report_is_self_contained(path):
    text = path.read_text()
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)|url\(["']?(?!#)([^"')]+)""", text)
    assert all(link.startswith("data:") for pair in links for link in pair if link)
    assert not re.search(r"@import|<script[^>]+src|fetch\(|XMLHttpRequest|import\(", text)
    assert {url for url in re.findall(r"https?://[^\s\"'<\\]+", text)} <= {"http://www.w3.org/2000/svg"}


@pytest.fixture(scope="module")
def page(path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium with its chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1100,900",
    ):
        options.add_argument(argument)
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        page.get(path.as_uri())
        yield page
    finally:
        page.quit()


def script(page, code: str):
    return page.execute_script(code)


def choose(page, name: str, value: str) -> None:
    page.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('change'))",
        name,
        value,
    )


def test_the_report_renders_without_errors(page):
    assert script(page, "return document.body.dataset.ready") == "yes"
    assert page.get_log("browser") == []
    assert script(page, "return document.querySelectorAll('svg[role=img]').length") == 2
    labels = script(page, "return [...document.querySelectorAll('svg text.title')].map(t => t.textContent)")
    for label in ("rate, bits per pixel (bpp), whole files", "PSNR, 8-bit RGB, dB", "megapixels per second (MP/s)"):
        assert label in labels
    assert script(page, "return document.documentElement.scrollWidth <= window.innerWidth")


def test_published_curves_are_dashed_and_labelled(page):
    dashed = script(
        page, "return [...document.querySelectorAll('#charts path[stroke-dasharray] > title')].map(t => t.textContent)"
    )
    assert "BPG 4:4:4 (published)" in dashed and all(name.endswith("(published)") for name in dashed)
    solid = script(
        page,
        "return [...document.querySelectorAll('#charts path[fill=none]:not([stroke-dasharray]) > title')]"
        ".map(t => t.textContent)",
    )
    assert solid == ["jpeg", "webp"]


def test_tables_show_numbers_and_escape_markup(page):
    cells = script(
        page, "return [...document.querySelectorAll('#bd tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    assert cells[0][:3] == ["%", "jpeg", "webp"] and cells[1][0] == "jpeg" and cells[1][1] == "0.0"
    assert "Lossless" in script(page, "return document.getElementById('extra').textContent")
    assert script(page, "return document.querySelectorAll('#extra b').length") == 0
    assert "</script><b>import</b>" in script(page, "return document.getElementById('extra').textContent")
    before = script(page, "return document.getElementById('bd').textContent")
    choose(page, "bdKind", "quality")
    assert script(page, "return document.getElementById('bd').textContent") != before


def test_curves_zoom_reset_and_hide(page):
    line = "return document.querySelector('#charts path[fill=none] ').getAttribute('d')"
    before = script(page, line)
    press = "[...document.querySelectorAll('#charts button')].find(b => b.textContent === arguments[0]).click()"
    page.execute_script(press, "zoom in")
    assert script(page, line) != before
    page.execute_script(press, "reset")
    assert script(page, line) == before
    page.execute_script("document.querySelector('#legend input').click()")
    assert "jpeg" not in script(
        page, "return [...document.querySelectorAll('#charts path > title')].map(t => t.textContent)"
    )
    page.execute_script("document.querySelector('#legend input').click()")


def test_the_slider_moves_the_divider(page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    clip_script = "return document.getElementById('leftImage').style.clipPath"
    position_script = "return document.getElementById('line').offsetLeft"
    before, start = script(page, clip_script), script(page, position_script)
    page.find_element(By.ID, "wipe").send_keys(Keys.ARROW_RIGHT * 20)
    assert script(page, clip_script) != before and script(page, position_script) > start
    stage = page.find_element(By.ID, "stage")
    actions = webdriver.ActionChains(page)
    actions.move_to_element(stage).click_and_hold().move_by_offset(-25, 0).release().perform()
    assert script(page, position_script) < start
    assert page.get_log("browser") == []


def test_the_gallery_shows_two_different_images(page):
    from selenium.webdriver.common.by import By

    for name in ("leftImage", "rightImage"):
        assert script(page, f"return document.getElementById('{name}').naturalWidth") == 80
    left_source, right_source = (
        script(page, f"return document.getElementById('{n}Image').src") for n in ("left", "right")
    )
    assert left_source != right_source
    assert "bytes" in page.find_element(By.ID, "leftTag").text
    page.find_element(By.ID, "showDifference").click()
    assert script(page, "return getComputedStyle(document.getElementById('difference')).display") == "block"
    page.find_element(By.ID, "showDifference").click()
    sizes = script(page, "return DATA.views.filter(v => v.codec).map(v => [v.target, v.bpp])")
    assert sizes and all(bpp <= target for target, bpp in sizes)


def test_every_control_is_reached_by_the_keyboard(page):
    """Charts pan, zoom and reset by keys; controls have names, and what scrolls can be focused."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    line = "return document.querySelector('#charts path[fill=none]').getAttribute('d')"
    before, figure = script(page, line), page.find_element(By.CSS_SELECTOR, "#charts svg")
    for keys in (Keys.ARROW_RIGHT, "+"):
        figure.send_keys(keys)
        assert script(page, line) != before
        figure.send_keys("0")
        assert script(page, line) == before
    unnamed = "[...document.querySelectorAll('select, input, button')].filter(e => !(e.labels && e.labels.length) && "
    unnamed += "!e.getAttribute('aria-label') && !e.textContent.trim()).map(e => e.id)"
    assert script(page, f"return {unnamed}") == []
    assert script(page, "return document.querySelectorAll('.scroll:not([tabindex])').length") == 0


def test_labels_of_the_wipe_have_all_metrics(page):
    tags = script(page, "return ['leftTag', 'rightTag'].map(id => document.getElementById(id).textContent)")
    assert all(re.search(r"\d+ bytes, [\d.]+ bpp \u00b7 PSNR [\d.]+ dB", tag) for tag in tags)


@pytest.mark.parametrize("width", [390, 768])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_phones_in_both_schemes(page, width, scheme):
    """Nothing is wider than the screen, text keeps its size, and the background has the scheme's colour."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        page.refresh()
        assert script(page, "return document.documentElement.scrollWidth <= window.innerWidth")
        drawn = "const s = document.querySelector('#charts svg');"
        drawn += "return s.getBoundingClientRect().width / s.viewBox.baseVal.width"
        assert script(page, drawn) == pytest.approx(1, abs=0.02)  # so 12 px are 12 px
        heads = "[...document.querySelectorAll('th[scope=row]')].map(e => e.clientWidth)"
        narrow = f"return Math.min(...{heads}.filter(Boolean))"
        assert script(page, narrow) > 60
        background = script(page, "return getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 28)")
        assert page.get_log("browser") == []
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        page.refresh()


def test_the_screenshot_has_the_colours_of_the_palette(page, tmp_path):
    page.set_window_size(1100, 2600)
    screenshot = tmp_path / "report.png"
    assert page.save_screenshot(str(screenshot))
    with Image.open(screenshot) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # the first two of the palette
        assert colour in colours
