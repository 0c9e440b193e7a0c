"""Figures and page show the data they were given; nothing global changes, nothing is loaded, nothing unescaped."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle
from PIL import Image

import synthetic_study as synthetic
from tauflow import plots
from tauflow.plots import reading, report_data, report_tables, style
from tauflow.run import Run


@pytest.fixture(scope="module")
def run():
    return synthetic.make_run()


@pytest.fixture(scope="module")
def measures(run):
    return synthetic.make_measures(run)


@pytest.fixture(scope="module")
def overlay(run):
    return synthetic.make_overlay(run)


def axes_of(figure):
    return figure.axes[0]


def line(axes, label):
    (found,) = [each for each in axes.get_lines() if each.get_label() == label]
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


def band(axes):
    """Lower and upper edge of the first band, by x."""
    vertices = next(c for c in axes.collections if isinstance(c, PolyCollection)).get_paths()[0].vertices
    edges = {}
    for x, y in vertices:
        edges.setdefault(x, []).append(y)
    return {x: (min(y), max(y)) for x, y in edges.items()}


class TestLoss:
    def test_median_band_and_members_are_the_runs(self, run):
        axes = axes_of(plots.loss(run))
        loss = run.data["loss"].values
        x, y = line(axes, "median of 4 seeds")
        np.testing.assert_allclose(x, run.data["tau"].values[0])
        np.testing.assert_allclose(y, np.median(loss, axis=0))
        edges = band(axes)
        low, high = np.percentile(loss[:, 50], [25, 75])
        np.testing.assert_allclose(edges[50.0], (low, high))
        single = [each.get_ydata() for each in axes.get_lines() if len(each.get_xdata()) == 200]
        assert all(any(np.array_equal(row, each) for each in single) for row in loss)
        assert axes.get_yscale() == "log"

    def test_axis_names_the_unit_of_learning_time(self):
        assert "updates" in axes_of(plots.loss(synthetic.make_run(2))).get_xlabel()
        assert "sum of learning rates" in axes_of(plots.loss(synthetic.make_run(2, unit="flow"))).get_xlabel()

    def test_theory_is_dashed_with_its_band_drawn_once(self, run, overlay):
        axes = axes_of(plots.loss(run, overlays=(overlay,)))
        (dashed,) = [each for each in axes.get_lines() if "fixed-point series" in str(each.get_label())]
        assert dashed.get_linestyle() == "--"
        assert dashed.get_label() == "fixed-point series ± its stated error"
        np.testing.assert_allclose(dashed.get_ydata(), overlay.prediction["loss"].values[0])
        theory = [c for c in axes.collections if np.allclose(c.get_facecolor()[0][:3], to_rgb(style.THEORY))]
        assert len(theory) == 1

    def test_theory_of_each_member_is_drawn_where_it_differs_by_more_than_its_band(self, run, overlay):
        def dashed(factor):
            prediction = overlay.prediction.copy(deep=True)
            prediction["loss"].values[1] *= factor
            changed = replace(overlay, prediction=prediction)
            lines = axes_of(plots.loss(run, overlays=(changed,))).get_lines()
            return sum(each.get_linestyle() == "--" for each in lines)

        assert dashed(1.1) == 1 and dashed(1.5) == 2

    def test_two_theories_that_agree_are_both_named(self, run, overlay):
        other = replace(overlay, theory_name="another theory")
        legend = axes_of(plots.loss(run, overlays=(overlay, other))).get_legend()
        names = " ".join(text.get_text() for text in legend.get_texts())
        assert "fixed-point series" in names and "another theory" in names

    def test_overlay_that_fails_draws_nothing(self, run):
        failing = axes_of(plots.loss(run, overlays=(synthetic.make_failing_overlay(),)))
        assert len(failing.get_lines()) == len(axes_of(plots.loss(run)).get_lines())

    def test_diverged_member_is_labelled_kept_and_not_in_the_median(self):
        run = synthetic.make_run(diverged=3)
        axes = axes_of(plots.loss(run))
        assert "diverged (1)" in [text.get_text() for text in axes.get_legend().get_texts()]
        _, y = line(axes, "median of 3 seeds")
        np.testing.assert_allclose(y, np.median(run.data["loss"].values[:3], axis=0))
        top = axes.get_ylim()[1]
        assert top < 10 * np.nanmax(run.data["loss"].values[:3]), "a blow-up must not squeeze the others"
        x, cross = line(axes, "diverged (1)")
        assert x == [99.0] and cross <= top

    def test_reference_line(self, run):
        axes = axes_of(plots.loss(run, reference=2.0))
        np.testing.assert_allclose(line(axes, "5 % of the initial loss")[1], 0.1)

    def test_one_member_all_diverged_and_interrupted(self):
        for case in ({"seeds": 1}, {"seeds": 1, "diverged": 0}, {"seeds": 3, "interrupted_at": 60}):
            run = synthetic.make_run(**case)
            for figure in (plots.loss(run), plots.singular_values(run), plots.eigenvalues(run)):
                figure.draw_without_rendering()
                assert any(np.isfinite(np.asarray(each.get_ydata(), float)).any()
                           for axes in figure.axes for each in axes.get_lines()), case  # fmt: skip

    def test_members_with_other_learning_times_are_not_averaged(self):
        data = synthetic.make_run(2, unit="flow").data.copy(deep=True)
        data["tau"].values[1] *= 3.0
        axes = axes_of(plots.loss(data))
        assert not [each for each in axes.get_lines() if "median" in str(each.get_label())]


class TestSpectra:
    def test_singular_values_are_the_median_of_the_run(self, run):
        axes = axes_of(plots.singular_values(run, count=3))
        values = run.data["delta_W_singular_values"].values
        for k in range(3):
            x, y = line(axes, f"$s_{{{k + 1}}}$")
            np.testing.assert_allclose(x, run.data["tau_measurement"].values[0])
            np.testing.assert_allclose(y, np.median(values[:, :, k], axis=0))
        assert "ΔW" in axes.get_ylabel()

    def test_one_member_and_its_theory(self, run, overlay):
        axes = axes_of(plots.singular_values(run, member=2, count=4, overlays=(overlay,)))
        np.testing.assert_allclose(line(axes, "$s_{1}$")[1], run.data["delta_W_singular_values"].values[2, :, 0])
        predicted = overlay.prediction["delta_W_singular_values"].values[2]
        dashed = [np.asarray(each.get_ydata()) for each in axes.get_lines() if each.get_linestyle() == "--"]
        assert len(dashed) == 2 and all(any(np.array_equal(p, d) for d in dashed) for p in predicted.T)
        edges = band(axes)
        tau = run.data["tau_measurement"].values[2, 10]
        np.testing.assert_allclose(edges[tau], (predicted[10, 0] - 0.2, predicted[10, 0] + 0.2))

    def test_circle_has_the_radius_of_the_gain(self, run):
        axes = axes_of(plots.eigenvalues(run))
        (circle,) = [patch for patch in axes.patches if isinstance(patch, Circle)]
        assert circle.radius == pytest.approx(synthetic.GAIN)
        assert axes.get_aspect() == 1.0
        (given,) = [p for p in axes_of(plots.eigenvalues(run, radius=0.4)).patches if isinstance(p, Circle)]
        assert given.radius == pytest.approx(0.4)

    def test_each_member_has_its_own_gain(self):
        run = synthetic.make_run(2, gains=[0.3, 1.2])
        (circle,) = [p for p in axes_of(plots.eigenvalues(run, member=1)).patches if isinstance(p, Circle)]
        assert circle.radius == pytest.approx(1.2)
        assert [m.label for m in reading.members(run)] == ["seed 0, gain 0.3", "seed 1, gain 1.2"]

    def test_no_circle_without_a_known_gain(self, run):
        data = run.data.assign_attrs(configuration="{}")
        assert not axes_of(plots.eigenvalues(data)).patches

    def test_eigenvalues_before_and_at_the_measurement(self, run):
        axes = axes_of(plots.eigenvalues(run, member=1, measurement=5))
        lam = run.data["W_eigenvalues"].values[1]
        x, y = line(axes, "update 50")
        np.testing.assert_allclose(x + 1j * y, lam[5])
        x, y = line(axes, "update 0")
        np.testing.assert_allclose(x + 1j * y, lam[0])


class TestRankAndTrials:
    def test_truncation_shows_both_medians_and_the_reference(self, measures):
        axes = axes_of(plots.truncation(measures))
        for label, name in (("W₀ + ΔW truncated", "delta_W"), ("W truncated", "W")):
            x, y = line(axes, label)
            np.testing.assert_allclose(x, measures["rank"].values)
            np.testing.assert_allclose(y, np.median(measures[f"truncated_loss_{name}"].values, axis=0))
        expected = 0.05 * np.median(measures["initial_loss"].values)
        np.testing.assert_allclose(line(axes, "5 % of the initial loss")[1], expected)

    def test_many_ranks_keep_rank_zero_in_sight(self):
        run = synthetic.make_run(2, neurons=64, measurements=3)
        axes = axes_of(plots.truncation(synthetic.make_measures(run)))
        zero, one, last = axes.transData.transform([(0, 1e-2), (1, 1e-2), (64, 1e-2)])[:, 0]
        assert (one - zero) > 0.1 * (last - zero)
        axes.figure.draw_without_rendering()

    def test_trials_show_inputs_targets_where_they_count_and_outputs(self, measures):
        figure = plots.trials(measures, member=1)
        inputs, first, second = figure.axes
        np.testing.assert_array_equal(line(inputs, "input 2")[1], measures["example_inputs"].values[:, 1])
        np.testing.assert_array_equal(line(first, "output")[1], measures["example_outputs"].values[1, :, 0])
        wanted = line(first, "target")[1]
        counted = measures["example_mask"].values[:, 0] > 0
        np.testing.assert_array_equal(wanted[counted], measures["example_targets"].values[counted, 0])
        assert np.isnan(wanted[~counted]).all()
        assert len(first.patches) == 2 and len(second.patches) == 1, "one shaded span for each stretch"
        assert "membrane time" in second.get_xlabel()


class TestStyle:
    def test_settings_of_matplotlib_stay_as_they_were(self, run, measures, overlay, tmp_path):
        before = dict(matplotlib.rcParams)
        plots.save_figures(tmp_path, run=run, measures=measures, overlays=(overlay,))
        plots.write_report(tmp_path / "report.html", run=run, measures=measures, overlays=(overlay,))
        assert dict(matplotlib.rcParams) == before

    def test_style_is_left_after_an_error(self):
        before = dict(matplotlib.rcParams)
        with pytest.raises(RuntimeError), plots.house_style():
            raise RuntimeError
        assert dict(matplotlib.rcParams) == before

    def test_figures_draw_into_given_axes(self, run, measures):
        with plots.house_style():
            figure = plots.new_figure(style.PAGE, 3.0)
            left, right = figure.subplots(1, 2)
        assert plots.loss(run, axes=left) is figure and plots.truncation(measures, axes=right) is figure

    def test_save_figures_writes_readable_pictures_and_nothing_else(self, run, measures, tmp_path):
        paths = plots.save_figures(tmp_path / "new", run=run, measures=measures)
        names = ["eigenvalues.png", "loss.png", "singular_values.png", "trials.png", "truncation.png"]
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
        assert set(paths) == {name.removesuffix(".png") for name in names}
        with Image.open(paths["loss"]) as picture:
            assert picture.size == (700, 600)

    def test_save_figures_leaves_out_what_is_not_there(self, run, tmp_path):
        data = run.data.drop_vars(["W_eigenvalues"])
        assert set(plots.save_figures(tmp_path, run=data)) == {"loss", "singular_values"}

    def test_unknown_ending_and_unwritable_folder_are_told(self, tmp_path):
        with pytest.raises(ValueError, match=r"\.bmpp.*must end in"):
            plots.save_figure(plots.new_figure(), tmp_path / "a.bmpp")
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match="cannot be written"):
            plots.save_figure(plots.new_figure(), tmp_path / "file" / "a.png")


def test_spread_leaves_out_what_is_not_finite():
    whole = reading.spread(np.array([[1.0, np.nan], [np.inf, np.nan], [3.0, np.nan]]))
    assert whole.median[0] == 2.0 and np.isnan(whole.median[1])


class Page(HTMLParser):
    """What a page would load, its ids, and its visible text."""

    def __init__(self, html):
        super().__init__()
        self.loads, self.ids, self.text, self.inside = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.inside.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        for name in ("src", "srcset", "href", "data", "action", "poster", "xlink:href"):
            if name in found and not found[name].startswith(("#", "data:,")):
                self.loads.append(f"<{tag} {name}={found[name][:60]}>")
        assert not any(name.startswith("on") for name in found), "no inline handlers"

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not self.inside or self.inside[-1] not in ("script", "style"):
            self.text.append(data)


def render(tmp_path, run, **more):
    html = plots.write_report(tmp_path / "report.html", run=run, **more).read_text(encoding="utf-8")
    content = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])
    page = Page(html)
    return html, content, " ".join(" ".join(page.text).split()), page


class TestReport:
    def test_page_is_one_file_that_loads_nothing(self, run, measures, overlay, tmp_path):
        html, _, _, page = render(tmp_path, run, measures=measures, overlays=(overlay,), title="A study")
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
        assert page.loads == []
        assert "default-src 'none'" in html
        parts = Path(plots.__file__).parent / "report_template"
        own = "".join((parts / name).read_text() for name in ("style.css", "app.js"))
        assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttpRequest|import\(", own)
        assert len(page.ids) == len(set(page.ids)) and len(html) < 8e6

    def test_page_holds_every_part(self, run, measures, overlay, tmp_path):
        configuration = synthetic.make_configuration()
        _, _, text, page = render(
            tmp_path, run, measures=measures, overlays=(overlay,), title="A study", configuration=configuration
        )
        for name in ("loss", "paths", "spectrum", "eigenvalues", "truncation", "trials"):
            assert f"plot-{name}" in page.ids
        assert {"slider", "slider-value", "slider-tau", "slider-s1", "member"} <= set(page.ids)
        for words in ("A study", "Functional rank of ΔW", "Loss after shuffling W₀", "fixed-point series", "✓ applies",
                      "optimizer learning rate", "cpu (2 cores)", "seed 3", "numpy", "0, 1, 2, 3"):  # fmt: skip
            assert words in text, words

    def test_data_are_the_runs(self, run, measures, overlay, tmp_path):
        _, content, _, _ = render(tmp_path, run, measures=measures, overlays=(overlay,))
        data = run.data
        np.testing.assert_allclose(content["loss"]["values"], data["loss"].values, rtol=1e-4)
        np.testing.assert_allclose(content["loss"]["spread"]["median"], np.median(data["loss"], axis=0), rtol=1e-4)
        spectra = content["spectra"]
        np.testing.assert_allclose(spectra["singular"], data["delta_W_singular_values"].values, rtol=1e-4)
        assert spectra["updates"] == data["measurement_update"].values.tolist()
        real, imaginary, mirrored = spectra["eigenvalues"][2][7]
        lam = np.array(real) + 1j * np.array(imaginary)
        assert mirrored == 1 and (lam.imag >= 0).all()
        whole = np.concatenate([lam, lam[lam.imag > 0].conj()])
        expected = data["W_eigenvalues"].values[2, 7]
        distance = np.abs(whole[:, None] - expected[None, :])
        assert len(whole) == len(expected) and distance.min(axis=0).max() < 1e-4
        assert content["members"][0]["gain"] == synthetic.GAIN
        band_low = spectra["overlays"][0]["low"][0]
        values = overlay.prediction["delta_W_singular_values"].values[0].T
        np.testing.assert_allclose(band_low, values - 0.2, atol=1e-4)
        outputs = measures["example_outputs"].values[1, :, 0]
        np.testing.assert_allclose(content["trials"]["outputs"][1][0], outputs, rtol=1e-4)

    def test_table_has_every_seed_and_the_median(self, run, measures):
        html = report_tables.measures_table(measures, run.data, reading.members(run))
        rows = {row: cells for row, cells in re.findall(r'<th scope="row">([^<]+).*?</th>(.*?)</tr>', html)}
        cells = re.findall(r"<td[^>]*>(.*?)</td>", rows["Loss after learning"])
        final = measures["final_loss"].values
        assert cells == [reading.fixed(np.median(final)), *(reading.fixed(v) for v in final)]

    def test_member_that_never_got_there_is_told(self, run, measures):
        changed = measures.copy(deep=True)
        changed["updates_to_threshold"].values[:2] = np.nan
        changed["functional_rank_W"].values[:] = np.nan
        changed["shuffled_loss"].values[0] = np.inf
        html = report_tables.measures_table(changed, run.data, reading.members(run))
        assert html.count("not reached") == 2 and "of 2 of 4" in html
        assert f"none up to {int(measures['rank'].max())}" in html and "∞" in html

    def test_outliers_are_counted_with_pairs_as_one(self, run, measures):
        changed = measures.copy(deep=True)
        changed["outliers"].values[:] = np.nan
        changed["outliers"].values[0, :3] = [1.2, 0.9 + 0.8j, 0.9 - 0.8j]
        html = report_tables.measures_table(changed, run.data, reading.members(run))
        assert "3<small>0.9 ± 0.8i<br>1.2</small>" in html

    def test_text_is_escaped(self, run, measures, tmp_path):
        nasty = "</script><script>alert(1)</script>"
        _, content, text, _ = render(
            tmp_path,
            run,
            measures=measures,
            overlays=(synthetic.make_failing_overlay(),),
            title=f"A {nasty} {{{{data}}}}",
            configuration={"task": {nasty: nasty}, "gain": 0.9},
        )
        html = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "<script>alert" not in html and "<b>this</b>" not in html
        assert f"A {nasty}" in text and "mean-field <kernel> theory" in text
        assert "{{data}}" in text, "what is filled in is not filled in again"
        assert content["members"]

    def test_overlay_that_fails_says_why_and_by_how_much(self, run, tmp_path):
        _, content, text, _ = render(tmp_path, run, overlays=(synthetic.make_failing_overlay(),))
        assert "✗ does not apply" in text and "1 of its 2 assumptions fails" in text
        assert re.search(r"linear network 1 0 φ is tanh & not the identity", text)
        assert content["loss"]["overlays"] == []

    def test_no_overlays_and_no_measures(self, run, tmp_path):
        _, content, text, page = render(tmp_path, run)
        assert "No theory was compared" in text
        assert "plot-loss" in page.ids and "plot-truncation" not in page.ids and content["trials"] is None

    def test_run_without_spectra(self, run, measures, tmp_path):
        data = run.data.drop_vars(["W_eigenvalues", "delta_W_singular_values"])
        _, content, _, page = render(tmp_path, data, measures=measures)
        assert content["spectra"] is None and "slider" not in page.ids

    def test_one_network(self, tmp_path):
        run = synthetic.make_run(1)
        _, content, text, _ = render(tmp_path, run, measures=synthetic.make_measures(run))
        assert content["loss"]["spread"] is None and "One RateRNN network" in text
        assert '"median"' not in (tmp_path / "report.html").read_text().split("<table")[1].split("</table")[0]

    @pytest.mark.parametrize("case", [{"diverged": 1}, {"interrupted_at": 60}, {"seeds": 1, "diverged": 0}])
    def test_stopped_members_are_labelled_not_hidden(self, tmp_path, case):
        run = synthetic.make_run(**case)
        word = "diverged at update 100" if "diverged" in case else "interrupted at update 60"
        _, content, text, _ = render(tmp_path, run, measures=synthetic.make_measures(run))
        assert word in text and "Not finished" in text
        stopped = case.get("diverged", 0)
        assert content["members"][stopped]["status"] != "done" and content["loss"]["stops"][stopped] is not None
        assert content["loss"]["values"][stopped][10] is not None

    def test_long_runs_are_thinned_with_first_and_last_kept(self, monkeypatch):
        kept = report_data._thinned(10_001, report_data.LOSS_POINTS)
        assert kept[0] == 0 and kept[-1] == 10_000 and len(kept) <= report_data.LOSS_POINTS + 1
        monkeypatch.setattr(report_data, "SPECTRUM_NUMBERS", 24 * 4 * 5)
        run = synthetic.make_run()
        spectra = report_data.payload(run, xr.Dataset(), (), reading.members(run))["spectra"]
        assert 2 <= len(spectra["updates"]) < 12 and spectra["updates"][-1] == 200
        assert len(spectra["singular"][0]) == len(spectra["updates"]) == len(spectra["axis"]["values"][0])

    def test_complex_spectrum_without_mirror_is_kept_whole(self):
        real, _, mirrored = report_data._half(np.array([1 + 1j, 2 - 0.5j, np.nan]))
        assert mirrored == 0 and real == [1.0, 2.0]

    def test_unwritable_file_is_told(self, run, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match="cannot be written"):
            plots.write_report(tmp_path / "file" / "report.html", run=run)

    def test_saved_run_draws_the_same(self, run, tmp_path):
        again = Run(run.data.copy(deep=True))
        first = report_data.to_script(report_data.payload(run, xr.Dataset(), (), reading.members(run)))
        assert first == report_data.to_script(report_data.payload(again, xr.Dataset(), (), reading.members(again)))
