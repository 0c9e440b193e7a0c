"""The page in a real browser without a network: the slider, the choice of a network, the keyboard, narrow screens."""

import re
from dataclasses import replace

import numpy as np
import pytest

import browsing
import synthetic_study as synthetic

pytestmark = pytest.mark.browser

browser, Visit = browsing.browser, browsing.Visit


@pytest.fixture(scope="module")
def run():
    return synthetic.make_run(diverged=2)


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    from tauflow import plots

    path = tmp_path_factory.mktemp("report") / "report.html"
    overlays = (synthetic.make_overlay(run), synthetic.make_failing_overlay())
    return plots.write_report(path, run=run, measures=synthetic.make_measures(run), overlays=overlays, title="A study")


@pytest.fixture(scope="module")
def desktop(browser, report):
    visit = Visit(browser, report)
    yield visit
    visit.context.close()


@pytest.fixture
def visit(desktop):
    """The open page, put back to the first network at the end of learning."""
    desktop.page.locator("#member").select_option("0")
    move(desktop, 20)
    return desktop


def move(visit, position):
    visit.page.locator("#slider").fill(str(position))
    visit.settle()


def first_value(run, member, measurement):
    return float(run.data["delta_W_singular_values"].values[member, measurement, 0])


def test_slider_moves_both_plots_and_their_values(visit, run):
    assert visit.text("slider-value") == "update 200 of 200"
    assert float(visit.text("slider-s1")) == pytest.approx(first_value(run, 0, 20), rel=1e-3)
    before = visit.drawn("plot-spectrum", "now"), visit.drawn("plot-eigenvalues", "now", "x")
    move(visit, 5)
    assert visit.text("slider-value") == "update 50 of 200"
    assert float(visit.text("slider-s1")) == pytest.approx(first_value(run, 0, 5), rel=1e-3)
    after = visit.drawn("plot-spectrum", "now"), visit.drawn("plot-eigenvalues", "now", "x")
    assert before[0] != after[0] and before[1] != after[1]
    assert after[0] == pytest.approx(run.data["delta_W_singular_values"].values[0, 5].tolist(), rel=1e-4)
    real = sorted(run.data["W_eigenvalues"].values[0, 5].real.tolist())
    assert sorted(after[1]) == pytest.approx(real, abs=1e-4)
    position = visit.page.evaluate("document.getElementById('plot-paths').layout.shapes[0].x0")
    assert position == 50


def test_slider_answers_the_keyboard_and_speaks(visit):
    slider = visit.page.get_by_label("Position in learning")
    slider.focus()
    slider.press("Home")
    visit.settle()
    assert visit.text("slider-value") == "update 0 of 200"
    slider.press("ArrowRight")
    visit.settle()
    assert visit.text("slider-value") == "update 10 of 200"
    assert re.match(r"update 10 of 200, first singular value \d", slider.get_attribute("aria-valuetext"))


def test_circle_has_radius_g(visit):
    name = f"circle of radius g = {synthetic.GAIN}"
    x, y = visit.drawn("plot-eigenvalues", name, "x"), visit.drawn("plot-eigenvalues", name, "y")
    assert [(a * a + b * b) ** 0.5 for a, b in zip(x, y, strict=True)] == pytest.approx([synthetic.GAIN] * len(x))


def test_another_network_can_be_chosen(visit, run):
    visit.page.get_by_label("Network shown").select_option("1")
    visit.settle()
    assert float(visit.text("slider-s1")) == pytest.approx(first_value(run, 1, 20), rel=1e-3)
    loss = visit.drawn("plot-loss", "seed 1")
    assert loss == pytest.approx(run.data["loss"].values[1].tolist(), rel=1e-4)
    assert visit.page.locator("td.chosen").first.get_attribute("data-member") == "1"


def test_diverged_network_is_labelled_and_says_where_it_stopped(visit):
    labels = visit.page.locator("#plot-loss text").all_text_contents()
    assert "seed 2: diverged" in labels
    visit.page.locator("#member").select_option("2")
    visit.settle()
    assert visit.text("slider-s1") == "—" and "diverged at update 100" in visit.text("slider-note")
    move(visit, 3)
    assert float(visit.text("slider-s1")) > 0 and visit.text("slider-note") == ""


def test_play_runs_through_learning_and_stops(visit):
    from playwright.sync_api import expect

    move(visit, 18)
    visit.page.get_by_role("button", name="Play").click()
    expect(visit.page.locator("#slider-value")).to_have_text("update 200 of 200")
    expect(visit.page.locator("#play")).to_have_text("Play")


def test_axis_can_be_logarithmic(visit):
    kind = "document.getElementById('plot-spectrum').layout.yaxis.type || 'linear'"
    assert visit.page.evaluate(kind) != "log"
    visit.page.get_by_label("logarithmic axis").check()
    assert visit.page.evaluate(kind) == "log"
    visit.page.get_by_label("logarithmic axis").uncheck()


def test_every_plot_is_drawn_and_named_for_a_screen_reader(visit):
    plots = visit.page.locator(".plot")
    assert plots.count() == 6
    for i in range(plots.count()):
        assert plots.nth(i).locator("svg.main-svg").count() > 0 and plots.nth(i).get_attribute("aria-label")


def test_theory_is_drawn_where_it_applies(visit):
    dashed = "document.getElementById('%s').data.filter((t) => t.line && t.line.dash === 'dash').length"
    assert visit.page.evaluate(dashed % "plot-loss") == 1 and visit.page.evaluate(dashed % "plot-paths") == 2
    assert "does not apply" in visit.page.locator("#theory").inner_text()


def test_probes_and_filters_are_drawn_with_their_theory(browser, run, tmp_path):
    from tauflow import plots

    rng = np.random.default_rng(1)
    turning = rng.normal(size=(4, 21, 2)) + 1j * rng.normal(size=(4, 21, 2))
    probed = run.data.assign(
        probe_size=(("run", "measurement"), rng.normal(size=(4, 21))),
        probe_pair=(("run", "measurement", "probe_pair_0"), turning),
    )
    time = np.linspace(0, 5, 11)
    filters = {f"filter_{name}": (("run", "time"), rng.normal(size=(4, 11))) for name in ("initial", "final")}
    measures = synthetic.make_measures(run).drop_dims("time").drop_vars("time", errors="ignore")
    measures = measures.assign(filters).assign(filter_target=("time", np.exp(-time))).assign_coords(time=time)
    overlay = synthetic.make_overlay(run)
    overlay = replace(overlay, prediction=probed[["probe_size", "probe_pair"]] + 0.5)
    path = plots.write_report(tmp_path / "probes.html", run=probed, measures=measures, overlays=(overlay,))
    visit = Visit(browser, path)
    assert visit.page.locator(".plot").count() == 9
    assert visit.drawn("plot-probe-0", "seed 0") == pytest.approx(probed["probe_size"].values[0].tolist(), rel=1e-4)
    expected = turning[0, :, 0].imag
    assert visit.drawn("plot-probe-2", "seed 0") == pytest.approx(expected.tolist(), rel=1e-4)
    assert visit.drawn("plot-probe-2", "fixed-point series") == pytest.approx(expected.tolist(), rel=1e-4)
    assert visit.drawn("plot-probe-1", "fixed-point series") == pytest.approx(turning[0, :, 0].real + 0.5, rel=1e-4)
    visit.page.locator("#member").select_option("1")
    visit.settle()
    assert visit.drawn("plot-filter", "after learning") == pytest.approx(filters["filter_final"][1][1], rel=1e-4)
    assert visit.drawn("plot-filter", "target") == pytest.approx(np.exp(-time), rel=1e-4)
    assert visit.complaints == []
    visit.context.close()


@pytest.mark.parametrize("width", [400, 1280])
def test_page_fits_its_screen_and_never_asks_for_anything(browser, report, width):
    visit = Visit(browser, report, width)
    move(visit, 4)
    visit.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    visit.settle()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.requests == [report.as_uri()]
    assert visit.complaints == []
    visit.context.close()


def test_nothing_was_loaded_and_nothing_complained_in_all_these_tests(desktop, report):
    assert desktop.requests == [report.as_uri()]
    assert desktop.complaints == []
