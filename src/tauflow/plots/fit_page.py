"""The page of a fit to a recording: one HTML file that opens offline, with everything in it and nothing loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tauflow.plots import fit_page_data, report_tables
from tauflow.plots.fit_figures import cue_title, explained_word, stage_title
from tauflow.plots.page import Section, figure, fill_page, plot, slider, tiles
from tauflow.plots.reading import fixed, number
from tauflow.run import write_atomic_bytes


def fit_page(
    path: str | os.PathLike[str], *, portrait: xr.Dataset, title: str, configuration: Mapping[str, Any]
) -> Path:
    """Write the page of a fit, in one step, over an older one if there is one.

    It holds the held-out loss against rank, if ranks were compared; the trial factors; latents by condition; the flow
    in a plane and the eigenvalues, with one slider over trials; the state at the cue; single neurons; settings and
    versions.

    Args:
        path: The file, usually report.html. Missing folders above it are made.
        portrait: What `tauflow.neural.portrait.portrait` gives.
        title: Heading of the page.
        configuration: Settings to show.

    Returns:
        The path.

    Raises:
        ValueError: If the file cannot be written.
    """
    page = fill_page(
        _sections(portrait, configuration),
        fit_page_data.payload(portrait),
        "fit.js",
        title=title,
        lead=_lead(portrait),
        notice=_notice(portrait),
        tiles=_tiles(portrait),
    )
    return write_atomic_bytes(Path(path), page.encode("utf-8"))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%" if np.isfinite(share) else "—"


def _lead(portrait: xr.Dataset) -> str:
    about, sizes = portrait.attrs, portrait.sizes
    source = f" of {about['source']}" if about["source"] else ""
    return (
        f"A network of {about['fitted_units']} units, whose weights change from trial to trial in the strengths of "
        f"{about['fitted_rank']} component{'s' * (about['fitted_rank'] > 1)}, fitted to {sizes['neuron']} neurons over "
        f"{sizes['trial']} trials{source}: what changed in it during learning."
    )


def _tiles(portrait: xr.Dataset) -> str:
    """The few numbers that a reader wants first."""
    about = portrait.attrs
    explained, ceiling, means = (about[name] for name in ("explained", "ceiling", "condition_means"))
    dropped, share = len(json.loads(about["dropped"])), explained / ceiling if ceiling > 0 else np.nan
    poisson = f"deviance explained: {_fixed(about['deviance_explained'])}, " if about["loss"] == "poisson" else ""
    cells = [
        ("Rank", str(about["fitted_rank"]), _how_chosen(portrait)),
        ("Held-out variance explained", _fixed(explained), f"{poisson}by condition means: {_fixed(means)}"),
        ("Noise ceiling", _fixed(ceiling), "estimate of what can be explained"),
        (
            "Share of the ceiling",
            _percent(share),
            "fast changes count as noise" if share > 1 else "explained / ceiling",
        ),
        ("Neurons", str(portrait.sizes["neuron"]), f"{portrait.sizes['condition']} conditions"),
        ("Trials", str(portrait.sizes["trial"]), f"{dropped} left out" if dropped else "none left out"),
    ]
    return tiles(cells, "Key numbers")


def _fixed(value: float) -> str:
    return fixed(value, 2 if abs(value) < 0.1 else 3)


def _how_chosen(portrait: xr.Dataset) -> str:
    if "chosen_rank" not in portrait:
        return "as asked"
    chosen = sorted(set(portrait["chosen_rank"].values.tolist()))
    same = chosen == [portrait.attrs["fitted_rank"]]
    return "chosen on held-out blocks" if same else f"held-out blocks choose {' or '.join(map(str, chosen))}"


def _notice(portrait: xr.Dataset) -> str:
    """What a reader must know before anything else."""
    about, said = portrait.attrs, []
    if not np.isfinite(about["explained"]):
        said.append("Nothing was held out of this fit, so nothing here says how well it predicts.")
    elif about["explained"] < about["condition_means"]:
        said.append(
            "Averages over all trials of a condition predict held-out blocks as well as this fit does: the recording "
            "gives no evidence of learning that the fit could show."
        )
    if not about["unique"]:
        said.append(
            "Kruskal’s condition does not hold: other components may make the same weights, so single trial factors, "
            "columns and rows must not be read on their own. Weights, eigenvalues and flow are the same for all."
        )
    said += [escape(note) for note in json.loads(about["notes"])]
    items = "".join(f"<li>{each}</li>" for each in said)
    return f'<div class="notice" role="note"><ul>{items}</ul></div>' if said else ""


def _sections(portrait: xr.Dataset, configuration: Mapping[str, Any]) -> list[Section]:
    made = Section(
        "made",
        "How it was made",
        "How it was made",
        "<p>All that is needed to do this again: settings, what was done to the recording, and versions.</p>",
        _recording(portrait) + report_tables.provenance(portrait, configuration),
    )
    first = [_rank_section(portrait)] if "held_out_loss" in portrait else []
    return [
        *first, _factors_section(), _latents_section(portrait), _dynamics_section(portrait), _cue_section(portrait),
        _neurons_section(portrait), made,
    ]  # fmt: skip


def _rank_section(portrait: xr.Dataset) -> Section:
    tried = portrait["rank"].values
    text = (
        "<p>Networks with more and more components were fitted to parts of the recording and tested on blocks that "
        "were held out. The chosen rank (ring) is the smallest whose mean loss is within one standard error of "
        "the best.</p>"
        "<p>What can fool you: few fits give an uncertain standard error; and fits on the same blocks go up and down "
        "together, so that differences between ranks are surer than their bars.</p>"
    )
    if int(portrait["chosen_rank"].values.max()) == int(tried.max()):
        text += f"<p><b>The chosen rank is the largest that was tried, {tried.max()}: try larger ones.</b></p>"
    word = explained_word(portrait)
    body = figure("ranks", "Held-out loss against rank", "Small dots: single fits.", size="low") + figure(
        "explained", f"{word.capitalize()} explained", "A gap between the two is what was fitted of noise.", size="low"
    )
    return Section(
        "rank", "Rank", "How many components the recording asks for", text, f'<div class="pair">{body}</div>'
    )


def _factors_section() -> Section:
    text = (
        "<p>In trial k the weights are W<sup>(k)</sup> = Σ<sub>j</sub> c<sub>j</sub> a<sub>j</sub> b<sub>j</sub>ᵀ with "
        "columns a and rows b of norm 1, so that c<sub>j</sub> is how strong component j is: dots in single trials, "
        "lines what of it is smooth over trials. Components come in the order of how much they change; the black bars "
        "are the stages that the other figures compare.</p>"
        "<p>What can fool you: the model keeps readout and initial states the same in all trials, so any change over "
        "trials, drifting electrodes and arousal included, is told as a change of weights. Smoothness over trials "
        "was built in: sudden changes are told as slower ones.</p>"
    )
    drawn = plot("factors", "Strength of each component over trials", "low")
    return Section("factors", "Trial factors", "What changed from trial to trial", text, drawn)


def _latents_section(portrait: xr.Dataset) -> Section:
    text = (
        "<p>All states of the network are x = Σ<sub>j</sub> z<sub>j</sub> a<sub>j</sub>. Here are the z<sub>j</sub>, "
        "averaged within each condition over the trials of a stage. A stage without trials of a condition lacks its "
        "line.</p><p>What can fool you: these are coordinates, not projections. Where columns are not at right angles, "
        "a large z<sub>j</sub> may be undone by another. And they are the model’s, without the noise of the data.</p>"
    )
    drawn = _wide("latents", "Coordinates of the states on the columns by condition and stage")
    return Section("latents", "Latents", "Activity on the components", text, drawn)


def _dynamics_section(portrait: xr.Dataset) -> Section:
    about, flat = portrait.attrs, portrait.sizes["plane"] == 2
    when = "after the inputs" if about["inputs"] else "along these trajectories"
    where = (
        "Arrows show where the network goes without input from each point of a plane of its states, the other "
        "coordinates being at their mean. The plane is the one of several whose arrows tell most: "
        f"{_percent(about['arrows_tell'])} of the squared velocity {when}, and "
        f"{_percent(about['arrows_tell_within'])} of the part within the plane. It holds "
        f"{_percent(float(portrait['plane_share'].sum()))} of the states’ variance, and {_columns_in(portrait)}. "
        if flat
        else "With one component the state is one number, and the grey line is its velocity without input. "
    )
    text = (
        f"<p>{where}Coloured lines are trajectories from each condition’s start, a dot. Circles are fixed points of "
        "the whole network, filled where stable.</p>"
        f"<p>What can fool you: arrows far from the lines are extrapolated. {_of_plane(portrait) if flat else ''}"
        f"{'Trajectories are driven by inputs at first, which arrows leave out. ' if about['inputs'] else ''}"
        "The time constant of a unit was set and not fitted: another one gives other eigenvalues.</p>"
    )
    titles = " · ".join(stage_title(portrait, s) for s in range(portrait.sizes["stage"]))
    count = portrait.sizes["shown"]
    control = slider("Trial", count, '<span>largest Re λ = <b id="slider-top"></b></span>')
    edge = _edge(portrait)
    figures = (
        figure("now", "Flow at the slider’s trial", "All conditions, with the weights of this trial.", size="square")
        + figure(
            "plane", "Eigenvalues at the slider’s trial", f"Pale: their paths over all trials. {edge}", size="square"
        )
        + figure("eigenvalues", "Eigenvalues of W over trials", "The green line is the slider’s trial.", wide=True)
    )
    stages = (
        f"<figcaption><h3>Flow in each stage</h3>{escape(titles)}: mean weights of its trials.</figcaption>"
        f"{_wide('stages', 'Flow in each stage')}"
    )
    return Section("dynamics", "Dynamics", "How the dynamics changed", text,
                   f'<figure>{stages}</figure>{control}<div class="pair">{figures}</div>')  # fmt: skip


def _columns_in(portrait: xr.Dataset) -> str:
    """How much of each column lies in the plane."""
    shares = (portrait["plane_columns"].values ** 2).sum(axis=-1)
    return ", ".join(f"{_percent(share)} of a<sub>{j + 1}</sub>" for j, share in enumerate(shares))


def _wide(name: str, label: str) -> str:
    """A figure of several columns, which a narrow screen scrolls."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{plot(name, label, "tall")}</div>'


def _of_plane(portrait: xr.Dataset) -> str:
    if portrait.attrs["arrows_tell"] < 0.6:
        return (
            "Here much of the motion is not told by any plane that was tried: follow the lines, and do not expect them "
            "to follow the arrows. "
        )
    return "Fixed points off the plane are seen through it, one upon the other, and arrows need not vanish there. "


def _edge(portrait: xr.Dataset) -> str:
    edge = portrait.attrs["edge"]
    if not np.isfinite(edge):
        return f"The nonlinearity {portrait.attrs['phi']} has no edge of stability at the origin to be drawn."
    return (
        f"Dashed: Re λ = {number(edge)}, right of which the origin is unstable. Dotted: the same for the steps of one "
        "bin that the network takes."
    )


def _cue_section(portrait: xr.Dataset) -> Section:
    about = portrait.attrs
    how = (
        "initial states and inputs of a condition"
        if about["inputs"]
        else "the network has no inputs, and initial states of a condition"
    )
    bins = f"{about['cue_bin'] + 1} bin{'s' * (about['cue_bin'] > 0)}"
    text = (
        f"<p>{escape(cue_title(portrait))}, as coordinates z<sub>j</sub>, in every trial. A shift here means that the "
        "same condition is prepared in another way.</p>"
        f"<p>What can fool you: {how} are the same in all trials by assumption. Only what the weights do up to this "
        f"time, here in {bins}, can differ"
        f"{': next to nothing. Begin the window earlier to ask' if about['cue_bin'] < 5 else ''}.</p>"
    )
    drawn = plot("cue", "State at the cue over trials by condition", "tall")
    return Section("cue", "Cue", "The state at the cue", text, drawn)


def _neurons_section(portrait: xr.Dataset) -> Section:
    text = (
        "<p>Above: how much of each neuron’s held-out variance the fit explains, beside its own noise ceiling. Below: "
        "the best neuron, a median one and a poor one (at the tenth percentile), by condition and stage. Thin lines "
        "with bands: mean of the data and its standard error over trials; dashed: the model in the same trials.</p>"
        "<p>What can fool you: most of the entries below were fitted, so that agreement there is no test; the held-out "
        "ones are above. Ceilings of single neurons are estimates, and a neuron may come out above its own; what is "
        "below −1 is drawn there. A line without a band is one trial.</p>"
    )
    body = (
        '<div class="pair">'
        + figure("histogram", f"All {portrait.sizes['neuron']} neurons", "", size="low")
        + figure(
            "ceilings", "Each against its own ceiling", "On the dotted line all is explained that can be.", size="low"
        )
        + "</div>"
        + _wide("neurons", "Data and model of single neurons by condition and stage")
    )
    return Section("neurons", "Neurons", "Single neurons, data and model", text, body)


def _recording(portrait: xr.Dataset) -> str:
    """What was done to the recording, and what was left out."""
    about = portrait.attrs
    items = [escape(step) for step in json.loads(about["steps"])]
    reasons: dict[str, list[str]] = {}
    for each in json.loads(about["dropped"]):
        reasons.setdefault(str(each["reason"]), []).append(str(each["trial_id"]))
    items += [f"trials left out, {escape(reason)}: {escape(', '.join(ids))}" for reason, ids in reasons.items()]
    silent = json.loads(about["silent"])
    items += [f"neurons that never fire: {escape(', '.join(map(str, silent)))}"] if silent else []
    return f"<h3>The recording</h3><ul>{''.join(f'<li>{each}</li>' for each in items)}</ul>" if items else ""
