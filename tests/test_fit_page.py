"""The page and the figures of a fit: they show the portrait they were given, offline, to a mouse and to a keyboard."""

import re

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.quiver import Quiver
from PIL import Image

import browsing
import known_fit
from tauflow import plots
from tauflow.neural.portrait import portrait
from tauflow.plots import fit_figures

browser, Visit = browsing.browser, browsing.Visit

FIGURES = ("ranks", "factors", "latents", "field", "eigenvalues", "cue", "neurons")
PLOTS = ("ranks", "explained", "factors", "latents", "stages", "now", "plane", "eigenvalues", "cue", "histogram",
         "ceilings", "neurons")  # fmt: skip


def scores_of(ranks):
    losses = 1 / np.arange(1, len(ranks) + 1)[:, None] + np.array([0.0, 0.01])
    names = ("test_loss", "train_loss", "explained_test", "explained_train")
    dims = ("units", "rank", "mask")
    return xr.Dataset({name: (dims, losses[None]) for name in names}, {"units": [20], "rank": ranks})


@pytest.fixture(scope="module")
def shown():
    data, fit = known_fit.known()
    return portrait(fit, data, scores_of([1, 2, 3]))


@pytest.fixture(scope="module")
def lone():
    """One component, of counts, without a cross-validation."""
    data, fit = known_fit.known(rank=1, loss="poisson")
    return portrait(fit, data)


def write(portrait, folder):
    configuration = {"rank": 3, "fit": {"loss": "mse", "note": "</script><b>bold</b>"}}
    return plots.fit_page(folder / "report.html", portrait=portrait, title="A <fit>", configuration=configuration)


def words(path):
    """What a reader reads, without what scripts and styles hold."""
    html = re.sub(r"<(script|style).*?</\1>", " ", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_figures_are_drawn_and_leave_matplotlib_alone(shown, tmp_path):
    before = dict(matplotlib.rcParams)
    files = plots.save_fit_figures(shown, tmp_path / "figures")
    assert [file.name for file in files] == [f"{name}.png" for name in FIGURES]
    for file in files:
        image = np.asarray(Image.open(file).convert("L"))
        assert image.shape[1] == 1440 and 0.02 < (image < 250).mean() < 0.6, file.name
    assert dict(matplotlib.rcParams) == before


def test_figures_draw_what_the_portrait_says(shown, lone):
    axes = fit_figures.fit_factors(shown).axes[0]
    np.testing.assert_array_equal(axes.get_lines()[2].get_ydata(), shown["strength"].values[:, 1])
    assert [text.get_text() for text in axes.texts] == ["before", "after", "late before", "late after"]
    (arrows,) = [each for each in fit_figures.fit_field(shown).axes[1].collections if isinstance(each, Quiver)]
    flow = shown["stage_field"].values[1]
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], axis=1), flow * fit_figures.arrow_scale(shown))
    line = fit_figures.fit_field(lone).axes[0].get_lines()[1]
    np.testing.assert_array_equal(line.get_ydata(), lone["stage_field"].values[0, :, 0])
    cells = fit_figures.fit_neurons(shown).subfigs[1].axes
    drawn = [np.asarray(line.get_ydata(), float) for line in cells[0].get_lines()]
    for kind in ("data", "model"):
        wanted = shown[f"rate_{kind}"].values[0, 2, :, 0]
        assert any(len(y) == len(wanted) and np.allclose(y, wanted) for y in drawn)


def test_page_says_what_the_portrait_says(shown, tmp_path):
    path = write(shown, tmp_path)
    html, text = path.read_text(encoding="utf-8"), words(path)
    assert "<b>bold</b>" not in html and "made <b>here</b>" not in html and "A &lt;fit&gt;" in html
    assert f"{shown.attrs['explained']:.3f}"[:4] in text and f"{shown.attrs['ceiling']:.3f}"[:4] in text
    for said in ("3 components", "12 neurons over 30 trials", "1 left out", "trials left out, not good: 11", "made up",
                 "the largest that was tried", "What can fool you", "no inputs"):  # fmt: skip
        assert said in text, said
    assert "deviance" not in text and "Kruskal" not in text
    warned = words(write(shown.assign_attrs(unique=0, explained=-0.5, notes='["Some <fits> diverged."]'), tmp_path))
    assert "Some &lt;fits&gt; diverged." in warned and shown.attrs["notes"] == "[]"
    assert "Kruskal’s condition does not hold" in warned and "no evidence of learning" in warned


def test_page_of_counts_tells_deviance_from_variance(lone, tmp_path):
    text = words(write(lone, tmp_path))
    assert "deviance explained" in text and "Held-out variance explained" in text
    assert "1 component," in text and "velocity without input" in text and "How many components" not in text
    assert lone.attrs["deviance_explained"] != lone.attrs["explained"]
    np.testing.assert_array_equal(lone["rate_data"].attrs["unit"], "Hz")


@pytest.fixture(scope="module")
def page(browser, shown, tmp_path_factory):
    visit = Visit(browser, write(shown, tmp_path_factory.mktemp("page")))
    yield visit
    visit.context.close()


def move(visit, position):
    visit.page.locator("#slider").fill(str(position))
    visit.settle()


@pytest.mark.browser
def test_every_plot_is_drawn_and_named_for_a_screen_reader(page):
    for name in PLOTS:
        place = page.page.locator(f"#plot-{name}")
        assert place.get_attribute("aria-label") and place.locator("svg.main-svg").count() > 0, name
    assert page.page.locator(".plot").count() == len(PLOTS)
    assert page.page.locator("main > section").count() == 7


@pytest.mark.browser
def test_lines_are_those_of_the_portrait(page, shown):
    for j in range(3):
        found = page.drawn("plot-factors", f"c<sub>{j + 1}</sub> of single trials")
        assert found == pytest.approx(shown["strength"].values[:, j].tolist(), rel=1e-4)
        smooth = page.drawn("plot-factors", f"c<sub>{j + 1}</sub>")
        assert smooth == pytest.approx(shown["smooth_strength"].values[:, j].tolist(), rel=1e-4)
    assert page.drawn("plot-latents", "90") == pytest.approx(shown["latent"].values[0, 1, :, 0].tolist(), rel=1e-4)
    assert page.drawn("plot-ranks", "mean ± standard error") == pytest.approx(
        shown["held_out_loss"].values[0].tolist(), rel=1e-4
    )
    here = shown["condition_of"].values == "180"
    assert page.drawn("plot-cue", "180") == pytest.approx(shown["cue_state"].values[here, 0].tolist(), rel=1e-4)


@pytest.mark.browser
def test_slider_moves_flow_and_eigenvalues_to_its_trial(page, shown):
    seen = {}
    for position in (2, 28):
        move(page, position)
        k = int(shown["shown"].values[position])
        trial = int(shown["trial_id"].values[k])
        assert page.text("slider-value") == f"trial {trial} (0 to 30)"
        value = shown["eigenvalue"].values[k, 0]
        name = "λ<sub>1</sub>"
        marks = "document.getElementById('plot-plane').data.filter((t) => t.name === name && t.mode === 'markers')"
        mark = page.page.evaluate(f"(name) => {{ const t = {marks}[0]; return [t.x[0], t.y[0]]; }}", name)
        assert mark == pytest.approx([value.real, value.imag], rel=1e-3, abs=1e-6)
        assert page.page.evaluate("document.getElementById('plot-eigenvalues').layout.shapes.at(-1).x0") == trial
        assert float(page.text("slider-top").replace("−", "-")) == pytest.approx(
            shown["eigenvalue"].values[k].real.max(), rel=1e-3
        )
        path = shown["shown_path"].values[position, 1, :, 0]
        assert page.drawn("plot-now", "90", "x") == pytest.approx(path.tolist(), rel=1e-3, abs=1e-4)
        seen[position] = arrows(page, "plot-now")
        c = shown["strength"].values[k]
        flow = (c * shown["field_read"].values) @ shown["plane_columns"].values - shown["point"].values
        flow = flow * shown.attrs["alpha"] / shown.attrs["bin_s"]
        scale = (seen[position] * flow).sum() / (flow**2).sum()  # one length per speed for all of them
        assert scale > 0 and np.abs(seen[position] - scale * flow).max() < 1e-3 * np.abs(scale * flow).max()
    assert np.abs(seen[2] - seen[28]).max() > 1e-3


def arrows(visit, plot):
    """Shafts of the arrows of a plot, (point, plane)."""
    x, y = (np.array(visit.drawn(plot, "flow", axis), object) for axis in "xy")
    return np.stack([each[1::7].astype(float) - each[::7].astype(float) for each in (x, y)], axis=1)


@pytest.mark.browser
def test_slider_answers_the_keyboard_and_play_stops(page):
    from playwright.sync_api import expect

    slider = page.page.get_by_label("Trial", exact=True)
    slider.focus()
    slider.press("Home")
    page.settle()
    slider.press("ArrowRight")
    page.settle()
    assert page.text("slider-value") == "trial 1 (0 to 30)"
    assert re.match(r"trial 1 \(0 to 30\), largest real part of an eigenvalue ", slider.get_attribute("aria-valuetext"))
    move(page, 27)
    page.page.get_by_role("button", name="Play").click()
    expect(page.page.locator("#slider-value")).to_have_text("trial 30 (0 to 30)")
    expect(page.page.locator("#play")).to_have_text("Play")


@pytest.mark.browser
def test_one_component_has_a_line_for_a_plane(browser, lone, tmp_path):
    visit = Visit(browser, write(lone, tmp_path))
    velocity = visit.drawn("plot-stages", "velocity")
    assert velocity == pytest.approx(lone["stage_field"].values[0, :, 0].tolist(), rel=1e-2, abs=1e-3)
    assert visit.page.locator(".plot").count() == len(PLOTS) - 2 and visit.complaints == []
    visit.context.close()


@pytest.mark.browser
def test_page_fits_a_narrow_screen(browser, shown, tmp_path):
    path = write(shown, tmp_path)
    visit = Visit(browser, path, 400)
    move(visit, 4)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert visit.requests == [path.as_uri()] and visit.complaints == []
    visit.context.close()


@pytest.mark.browser
def test_nothing_was_loaded_and_nothing_complained_in_all_these_tests(page):
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.requests == [page.page.url] and page.complaints == []
