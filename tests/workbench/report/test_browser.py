"""The page in a browser: Chromium where one is on the PATH; its source tells the same in part."""

import html
import json
import re
import shutil
import subprocess

import pytest
from support.html_page import Page

from retina_plugin.workbench.report import write_report

BROWSERS = ("chromium-headless-shell", "chrome-headless-shell", "chromium", "google-chrome")
PHONE = 500  # pixels; headless Chromium has no narrower window
WATCH = """<script>
window.mistakes = [];
addEventListener("error", (e) => mistakes.push(e.message));
</script>"""
LOOK = """<script>
addEventListener("load", () => {
  const page = document.documentElement;
  const all = (what) => [...document.querySelectorAll(what)];
  const names = () => all("#set0-classes td.name").map((x) => x.textContent);
  const tests = () => all(".test").filter((x) => x.offsetHeight > 0).map((x) => x.id);
  const seen = { mistakes, inner: innerWidth, wide: page.scrollWidth, scripted: page.className };
  seen.outside = all("main *").filter((x) => !x.closest(".scroll, .tall, pre, svg") &&
    x.getBoundingClientRect().right > innerWidth + 1).map((x) => x.outerHTML.slice(0, 80));
  const sort = () => document.querySelector("#set0-classes th:nth-child(3) button").click();
  sort();
  seen.down = names();
  sort();
  seen.up = names();
  const select = document.querySelector("select.classes");
  select.value = select.options[1].value;
  select.dispatchEvent(new Event("change"));
  seen.picked = all(".line.faint.on").length;
  seen.tests = tests();
  location.hash = "#set1-errors";
  setTimeout(() => {
    seen.then = tests();
    page.dataset.seen = JSON.stringify(seen);
  }, 100);
});
</script>"""


def browser():
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def look_at(page, width):
    """What a script in the page sees in a window of a phone's or a screen's width."""
    source = page.read_text(encoding="utf-8").replace("<head>", f"<head>{WATCH}", 1)
    watched = page.with_name("watched.html")
    watched.write_text(source.replace("</body>", f"{LOOK}</body>"), encoding="utf-8")
    command = [
        *(browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},844"),
        *("--virtual-time-budget=4000", "--dump-dom", watched.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, done.stdout[-2000:] + done.stderr
    return json.loads(html.unescape(found[1]))


@pytest.fixture
def page(make):
    """Long names, two data sets, as many parts as a page can have."""
    run = make(classes=("cat", "a_class_with_a_name_that_is_longer_than_any_column_should_ever_be"))
    found = json.loads(run.detections.read_text())
    run.detections.write_text(json.dumps(found[:3]))  # the classes differ
    run.detect([1, 2], score=0.9, name="other")
    node = "DATASETS.COCO.TEST"
    run.write_config(
        *(f"{node}.NAME", ["val", "other"], f"{node}.JSON", [str(run.json)] * 2),
        *("MODEL.WEIGHTS", "a_folder/" * 30),
    )
    return write_report(run.folder, group_by=["site"])


@pytest.mark.parametrize("width", [PHONE, 1280])
def test_nothing_fails_and_nothing_leaves_the_window(page, width):
    source = Page(page.read_text(encoding="utf-8"))
    assert 'name="viewport" content="width=device-width' in source.html
    for wide in ('<table class="matrix">', '<table class="sortable">', '<table class="changed">'):
        for before in source.html.split(wide)[:-1]:
            assert re.search(r'<div class="scroll( tall)?">\s*$', before), wide
    if browser() is None:
        return
    seen = look_at(page, width)
    assert seen["mistakes"] == []
    assert seen["inner"] == width
    assert seen["outside"] == [] and seen["wide"] <= width
    assert seen["scripted"] == "scripted"
    assert seen["down"] == seen["up"][::-1] and len(seen["down"]) == 2
    assert seen["picked"] == 2  # of precision over recall, and of F1
    assert (seen["tests"], seen["then"]) == (["set0"], ["set1"])
