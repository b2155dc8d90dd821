"""The page in headless Chromium: opens without network or error, and does what it offers (`make test-browser`)."""

import re
import shutil
from pathlib import Path

import pytest
from helpers.made_runs import TEXT, made_run, made_sweep

from diffq_exp.results.discovery import find_runs
from diffq_exp.results.page import write_page
from diffq_exp.results.summary import make_report
from diffq_exp.results.sweep_records import read_sweep, runs_of

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
SLOW = 40_000  # ms: a busy machine takes seconds to read plotly
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 400, "height": 800}
HOSTILE = "<img src=x onerror=document.title='acted'><b>b</b>"
PLACE = """([method, settings]) => {  // of a point in the chart, in pixels of the window
    const point = problem().points.find((each) => each.method === method && each.settings === settings);
    const chart = document.getElementById("front");
    const {left, top} = chart.querySelector(".nsewdrag").getBoundingClientRect();
    const {xaxis, yaxis} = chart._fullLayout;
    return [left + xaxis.d2p(point.size), top + yaxis.d2p(point.score)];
}"""  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    sync_api.expect.set_options(timeout=SLOW)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def show(chromium):
    """Opens a page from its file; at the end it must have made no request and no complaint.

    The page's policy forbids eval, and so playwright's wait_for_function: wait with expect().
    """
    contexts, wrong = [], []

    def opened(path: Path, viewport=WIDE, script: str | None = None):
        context = chromium.new_context(viewport=viewport, reduced_motion="reduce")
        context.set_default_timeout(SLOW)
        if script:
            context.add_init_script(script)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: request.url == path.as_uri() or wrong.append(request.url[:80]))
        page.goto(path.as_uri())
        page.wait_for_selector("#unfinished-title", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def page_of(folder: Path, sweep: str | None = None) -> Path:
    outputs = folder / "outputs"
    runs, planned = find_runs([outputs]), read_sweep(outputs, sweep) if sweep else None
    report = make_report(runs_of(planned, runs), planned) if planned else make_report(runs)
    write_page(report, folder / "index.html")
    return folder / "index.html"


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory):
    """Five methods with three seeds each, one broken point, failed and missing jobs."""
    folder = tmp_path_factory.mktemp("sweep")
    name = made_sweep(folder / "outputs", epochs=20).stem
    made_run(folder / "outputs", ["quantizer=ptq", "bits=2", "seed=0"], accuracy=0.1, mb=0.04, epochs=20)
    made_run(folder / "outputs", ["quantizer=ptq", "bits=2", "seed=1"], accuracy=0.1, mb=0.04, epochs=20)
    made_run(folder / "outputs", ["quantizer=ptq", "bits=2", "seed=2"], accuracy=0.1, mb=0.04, epochs=20)
    return page_of(folder, name)


@pytest.fixture(scope="module")
def two_problems_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for dataset in ("digits", "mnist"):
        for penalty in (1, 3):
            made_run(folder / "outputs", [f"dataset={dataset}", f"penalty={penalty}"])
    return page_of(folder)


def point(page, method: str, settings: str) -> tuple[float, float]:
    return page.evaluate(PLACE, [method, settings])


def no_wider_than_the_window(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# ---- the chart --------------------------------------------------------------------------------------------------


def test_opens_with_a_point_selected_and_its_run_drawn(show, sweep_page):
    page = show(sweep_page)
    assert page.inner_text("h1") == "pareto_digits-1a2b3c4d"
    assert "55 runs: 51 finished, 1 failed, 1 diverged, 2 missing" in page.inner_text("#counts")
    assert page.locator("#points tr[aria-current]").count() == 1
    assert page.locator("#curves .curve svg.main-svg").count() >= 3
    assert page.locator("#curves .bars > div").count() == 4
    assert page.locator("#problem-choice").is_hidden()


def test_hover_shows_the_overrides_without_the_seed(show, sweep_page):
    page = show(sweep_page)
    x, y = point(page, "qat", "bits=4")
    page.mouse.move(x - 40, y + 30)
    page.mouse.move(x, y)
    sync_api.expect(page.locator("#front .hoverlayer")).to_contain_text("bits=4")
    text = page.locator("#front .hoverlayer").text_content()
    assert "quantizer=qat" in text and "3 runs" in text and "MB, 4.00 bits" in text and "±" in text
    assert "seed" not in text


def test_click_selects_the_point_and_shows_its_run(show, sweep_page):
    page = show(sweep_page)
    page.mouse.click(*point(page, "ptq", "bits=4"))
    sync_api.expect(page.locator("#run-title")).to_have_text("PTQ")
    assert page.inner_text(".settings") == "bits=4"
    assert "quantizer=ptq bits=4 seed=0" in page.inner_text("#run-facts code")
    row = page.locator("#points tr[aria-current]")
    assert row.count() == 1 and row.inner_text().startswith("PTQ")
    ring = page.evaluate("document.getElementById('front').data.at(-1).x[0]")
    assert ring == pytest.approx(page.evaluate("problem().points[state.point].size"))


def test_a_method_can_be_hidden_and_comes_back(show, sweep_page):
    page = show(sweep_page)
    visible = "document.getElementById('front').data.filter(({name}) => name === 'qat').map(({visible}) => visible)"
    for expected in (False, True):
        page.click("#legend [data-method=qat]")
        assert page.get_attribute("#legend [data-method=qat]", "aria-pressed") == str(expected).lower()
        assert page.evaluate(visible) == [expected, expected]


def test_a_broken_point_does_not_set_the_scale_until_asked(show, sweep_page):
    page = show(sweep_page)
    low = "document.getElementById('front').layout.yaxis.range[0]"
    assert page.evaluate(low) > 0.8
    assert re.search(r"All points \(\d+ below\)", page.inner_text("#range"))
    page.click("#range")
    assert page.evaluate(low) < 0.1 and page.get_attribute("#range", "aria-pressed") == "true"


def test_what_lies_beyond_the_axes_is_marked_with_its_score(show, sweep_page):
    page = show(sweep_page)
    texts = page.evaluate("() => document.getElementById('front').layout.annotations.map((each) => each.text)")
    assert "▼ 10.00 ± 0.00 %" in texts
    page.click("#range")
    assert "▼" not in page.evaluate("() => document.getElementById('front').layout.annotations[0].text")


@pytest.mark.parametrize("epochs", [1, 2, 7, 300])
def test_the_labels_of_epochs_are_whole_and_differ(show, tmp_path, epochs):
    made_run(tmp_path / "outputs", ["quantizer=qat"], epochs=epochs)
    page = show(page_of(tmp_path))
    labels = page.locator(".curve >> nth=0").locator(".xtick text").all_text_contents()
    assert labels == sorted({*labels}, key=int) and 1 <= len([each for each in labels if int(each) > 0]) <= 8


def test_settings_are_sorted_by_their_numbers(show, tmp_path):
    for penalty in ("0.05", "0.3", "3", "30"):
        made_run(tmp_path / "outputs", [f"penalty={penalty}"])
    page = show(page_of(tmp_path))
    page.click("#points th:has-text('Settings') button")
    rows = page.locator("#points tbody tr td:nth-child(2)").all_inner_texts()
    assert rows == ["penalty=0.05", "penalty=0.3", "penalty=3", "penalty=30"]


def test_zoomed_in_the_sizes_still_have_ticks(show, sweep_page):
    page = show(sweep_page)
    page.evaluate("Plotly.relayout('front', {'xaxis.range[0]': -0.9, 'xaxis.range[1]': -0.8})")
    ticks = page.evaluate("document.getElementById('front').layout.xaxis.tickvals")
    assert any(10**-0.9 <= tick <= 10**-0.8 for tick in ticks)


# ---- another headline -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_page(tmp_path_factory):
    """Bits per byte, which are better when they are lower; one point is far worse than the others."""
    folder = tmp_path_factory.mktemp("text")
    name = made_sweep(folder / "outputs", first=TEXT, epochs=20).stem
    made_run(folder / "outputs", [*TEXT, "quantizer=ptq", "bits=2", "seed=0"], bits_per_byte=6.5, mb=0.04)
    return page_of(folder, name)


def test_bits_per_byte_in_chart_panel_and_tables(show, text_page):
    page = show(text_page)
    text = page.inner_text("main")
    assert "Bits per byte against size" in text and "test bits per byte" in text
    assert "Smallest within 0.05 bits" in text and '"Within" counts bits above float32' in text
    assert "Dashed: float32, 2.3" in text and "Chance is 8.0000." in text
    assert "ccuracy" not in text and "%" not in text
    title = "document.getElementById('front').layout.yaxis.title.text"
    assert page.evaluate(title) == "test bits per byte (lower is better)"


def test_a_point_that_is_worse_is_above_where_lower_is_better(show, text_page):
    page = show(text_page)
    high = "document.getElementById('front').layout.yaxis.range[1]"
    assert page.evaluate(high) < 4
    assert re.search(r"All points \(\d+ above\)", page.inner_text("#range"))
    page.click("#range")
    assert page.evaluate(high) > page.evaluate("Math.max(...problem().points.map(({ score }) => score))")


# ---- the run ----------------------------------------------------------------------------------------------------


def test_seed_buttons_change_the_run(show, sweep_page):
    page = show(sweep_page)
    before = page.inner_text("#run-facts dl")
    page.click(".seeds button:has-text('seed 2')")
    assert "seed=2" in page.inner_text("#run-facts code")
    assert page.inner_text("#run-facts dl") != before
    assert page.inner_text(".seeds [aria-pressed=true]") == "seed 2"


def test_copy_puts_the_command_on_the_clipboard(show, sweep_page):
    page = show(sweep_page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = page.locator("#run-facts .command button")
    button.click()
    sync_api.expect(button).to_have_text("Copied")
    assert page.inner_text("#live") == "Copied"
    assert page.evaluate("navigator.clipboard.readText()") == page.inner_text("#run-facts code")
    sync_api.expect(button).to_have_text("Copy")


def test_copy_without_a_clipboard_object(show, sweep_page):
    page = show(
        sweep_page,
        script="""Object.defineProperty(navigator, "clipboard", { value: undefined });
                  document.addEventListener("copy", () => { window.copied = document.activeElement.value; });""",
    )
    page.click("header .command button")
    sync_api.expect(page.locator("header .command button")).to_have_text("Copied")
    assert page.evaluate("window.copied") == "python -m diffq_exp.train -m experiment=pareto_digits"
    assert page.locator("textarea").count() == 0


def test_a_run_without_epochs_says_so(show, tmp_path):
    (made_run(tmp_path / "outputs", ["quantizer=none"]) / "metrics.jsonl").unlink()
    page = show(page_of(tmp_path))
    assert "no epochs" in page.inner_text("#curves") and "nothing is quantized" in page.inner_text("#curves")
    assert "null" not in page.inner_text("main") and "NaN" not in page.inner_text("main")


# ---- the tables -------------------------------------------------------------------------------------------------


def test_points_are_sorted_by_a_column_either_way(show, sweep_page):
    page = show(sweep_page)
    sizes = "[...document.querySelectorAll('#points tbody tr')].map((row) => Number(row.cells[3].textContent))"
    for direction in ("ascending", "descending"):
        page.click("#points th:nth-child(4) button")
        shown = page.evaluate(sizes)
        assert shown == sorted(shown, reverse=direction == "descending") and len(shown) > 10
        assert page.get_attribute("#points th:nth-child(4)", "aria-sort") == direction
    assert page.locator("#points tr[aria-current]").count() == 1


def test_a_row_selects_its_point_by_mouse_and_by_keyboard(show, sweep_page):
    page = show(sweep_page)
    page.click("#points tbody tr:nth-child(2) td:nth-child(3)")
    assert page.evaluate("state.point") == 1
    page.focus("#points tbody tr:nth-child(4) button")
    page.keyboard.press("Enter")
    assert page.evaluate("state.point") == 3
    assert page.evaluate("document.activeElement.id") == "run-title"


def test_a_method_s_marks_lead_to_their_points(show, sweep_page):
    page = show(sweep_page)
    page.locator("#methods tbody tr", has_text="DiffQ").locator("td button").first.click()
    assert page.inner_text("#run-title") == "DiffQ"


def test_what_did_not_finish_is_named_with_its_reason(show, sweep_page):
    text = show(sweep_page).inner_text("#unfinished-box")
    for expected in (
        "loss is nan in epoch 1, step 3",
        "OSError: disk full",
        "missing",
        "quantizer=qat bits=6 seed=1",
    ):
        assert expected in text


# ---- other reports ----------------------------------------------------------------------------------------------


def test_the_selector_changes_the_problem(show, two_problems_page):
    page = show(two_problems_page)
    assert page.inner_text("h2#problem-name") == "digits, digits_cnn"
    page.select_option("#problem-select", label="mnist, digits_cnn")
    assert page.inner_text("h2#problem-name") == "mnist, digits_cnn"
    assert "dataset=mnist" in page.inner_text("#run-facts code")
    assert page.locator("#points tbody tr").count() == 2


def test_one_run(show, tmp_path):
    made_run(tmp_path / "outputs", ["penalty=3"])
    page = show(page_of(tmp_path))
    assert page.locator(".seeds").count() == 0 and page.locator("#points tbody tr").count() == 1
    assert "No float32 run" in page.inner_text("#front-caption")
    assert "null" not in page.inner_text("main")


def test_no_finished_run(show, tmp_path):
    made_run(tmp_path / "outputs", ["lr=1e30"], "diverged", reason="loss is nan")
    page = show(page_of(tmp_path))
    assert page.locator("#results").is_hidden() and "No run has finished" in page.inner_text("main")
    assert "loss is nan" in page.inner_text("#unfinished")


def test_hostile_strings_are_shown_and_do_nothing(show, tmp_path):
    outputs = tmp_path / "outputs"
    made_run(outputs, [f"noise={HOSTILE}"], layers=(HOSTILE, "conv.weight"))
    made_run(outputs, ["noise=uniform"])
    made_run(outputs, ["lr=1e30"], "failed", reason=HOSTILE)
    page = show(page_of(tmp_path))
    settings = page.evaluate("problem().points.find((point) => point.settings.includes('onerror')).settings")
    page.locator("#points tr.pick", has_text="onerror").click()
    page.mouse.move(*point(page, "diffq", settings))
    sync_api.expect(page.locator("#front .hoverlayer")).to_contain_text(f"noise={HOSTILE}")
    assert HOSTILE in page.inner_text("#unfinished") and HOSTILE in page.inner_text("#run-facts")
    assert page.locator("img").count() == 0 and page.locator("b", has_text=re.compile("^b$")).count() == 0
    assert page.title() == "outputs"


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1400", "400"])
def test_the_page_is_no_wider_than_its_window(show, tmp_path, sweep_page, viewport):
    long = "dataset.root=" + "/a_long_name_of_a_folder" * 8
    made_run(tmp_path / "outputs", ["penalty=3"], layers=("a_long_name_of_a_layer." * 6 + "weight",))
    made_run(tmp_path / "outputs", ["lr=1e30", long], "failed", reason="x" * 300)
    for path in (sweep_page, page_of(tmp_path)):
        assert no_wider_than_the_window(show(path, viewport))


def test_a_narrow_page_has_its_legend_below_the_chart(show, sweep_page):
    page = show(sweep_page, NARROW)
    boxes = {name: page.locator(f"#{name}").bounding_box() for name in ("front", "legend", "run-box")}
    assert boxes["front"]["y"] < boxes["legend"]["y"] < boxes["run-box"]["y"]
    page.locator("#points tbody tr").first.click()
    assert 0 <= page.locator("#run-title").bounding_box()["y"] < NARROW["height"]
