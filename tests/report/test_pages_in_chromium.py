"""The pages in a real browser: what is in view, what hovering, keys and the legend do, what is asked for, and axe."""

import asyncio
import json
from importlib import resources

import pytest
from test_measured_page import make_page
from test_report_page import HOSTILE, make_data

from browser import DESKTOP, PHONE, needs_chromium, open_tab
from cuvee.collapse import run_collapse
from cuvee.report.collapse_page import render_collapse
from cuvee.report.corpus_page import render_measurement
from cuvee.report.study_page import render_report

pytestmark = [pytest.mark.slow, needs_chromium]
AXE = "axe.run().then(found => found.violations.filter(v => ['serious', 'critical'].includes(v.impact))"
AXE += ".map(v => v.id + ': ' + v.nodes.slice(0, 3).map(n => n.html.slice(0, 200)).join(' | ')))"
MARKS = "document.querySelectorAll('.maps svg.chart [data-tip]')"
PAGES = {
    "study": lambda: render_report(make_data()),
    "measured": lambda: render_measurement(make_page()),
    "collapse": lambda: render_collapse(run_collapse({"model": {"kind": "gaussian", "rows": 20}, "chains": 20})),
}


async def check(tab, name):
    """What holds of every page at every width, in every theme."""
    assert await tab.run("document.documentElement.scrollWidth <= innerWidth"), "a scroll bar to the side"
    assert await tab.run("document.querySelector('h1').getBoundingClientRect().bottom < innerHeight")
    assert await tab.run(AXE) == []
    assert tab.said == [] and tab.asked == [name.as_uri()]


async def hover(tab):
    """A mark of the map shows its text, as text."""
    await tab.run(f"{MARKS}[7].scrollIntoView({{block: 'center', behavior: 'instant'}})")
    at, text = await tab.run(
        "(m => {const b = m.getBoundingClientRect(); return [[b.x + b.width / 2, b.y + b.height / 2], m.dataset.tip]})"
        f"({MARKS}[7])"
    )
    await tab.point(*at)
    assert await tab.run("!tip.hidden && tip.innerText") == text and HOSTILE in text
    box = await tab.run("(b => [b.left, b.right, b.top])(tip.getBoundingClientRect())")
    assert box[0] >= 0 and box[1] <= await tab.run("innerWidth") and box[2] >= 0
    await tab.point(1, 1)
    assert await tab.run("tip.hidden")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_at_both_widths_in_both_themes(tmp_path, name):
    async def run():
        page = tmp_path / f"{name}.html"
        page.write_text(PAGES[name](), "utf-8")
        grounds = set()
        async with open_tab(tmp_path / "profile") as tab:
            for size in (DESKTOP, PHONE):
                for dark in (False, True):
                    tab.asked.clear()
                    await tab.show(page, size, dark=dark)
                    await tab.run(resources.files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
                    await check(tab, page)
                    if name != "collapse":
                        await hover(tab)
                    grounds.add(await tab.run("getComputedStyle(document.body).backgroundColor"))
            assert len(grounds) == 2
            assert "\x1b" not in await tab.run("document.documentElement.outerHTML")
            assert await tab.run("document.scripts.length") == 1 and tab.said == []

    asyncio.run(run())


def test_the_answer_is_in_view_and_the_keyboard_and_the_legend_work(tmp_path):
    async def run():
        page = tmp_path / "study.html"
        page.write_text(PAGES["study"](), "utf-8")
        async with open_tab(tmp_path / "profile") as tab:
            for size in (DESKTOP, PHONE):
                await tab.show(page, size)
                for part in ("h1", "#finding-answer", "#finding-avoid", "#finding-scope"):
                    script = f"document.querySelector('{part}').getBoundingClientRect().bottom <= innerHeight"
                    assert await tab.run(script), (part, size)
            chart = "document.querySelector('#amount svg.chart')"
            await tab.run(f"{chart}.focus()")
            told = []
            for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
                await tab.press(key)
                told.append(await tab.run("tip.textContent"))
            assert (
                told[0] == told[2] != told[1] and told[0].startswith("topics=1, ") and "over the real rows" in told[0]
            )
            await tab.press("Escape")
            assert await tab.run("tip.hidden")
            shown = f"[...{chart}.querySelectorAll('[data-tip]')].filter(m => m.getClientRects().length).length"
            key = "document.querySelector('#amount button.key')"
            before = await tab.run(shown)
            await tab.run(f"{key}.click()")
            assert (await tab.run(shown), await tab.run(f"{key}.ariaPressed")) == (before - 3, "false")
            await tab.run(f"{key}.click()")
            assert await tab.run(shown) == before
            link = await tab.run("fetch ? document.querySelector('#amount a.data').href : ''")
            assert link.startswith("data:text/csv;") and tab.said == [], json.dumps(tab.said)
            await tab.show(page, DESKTOP, dark=True, media="print")
            await tab.run("dispatchEvent(new Event('beforeprint'))")
            assert await tab.run("[...document.querySelectorAll('details')].every(part => part.open)")
            paper = "(name => getComputedStyle(document.querySelector(name)))"
            assert await tab.run(f"{paper}('.card').backgroundColor") == "rgb(255, 255, 255)"
            assert await tab.run(f"[{paper}('nav').display, {paper}('a.data').display]") == ["none", "none"]

    asyncio.run(run())
