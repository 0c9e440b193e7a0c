"""The contract of analysis and theory, for every public function found: shape, dtype, leading batch axes, bad input."""

import inspect
from typing import NamedTuple

import jax
import numpy as np
import pytest

from tauflow import analysis
from tauflow.tasks import LeakyIntegrator
from tauflow.theory import (
    THEORIES,
    Assumption,
    Overlay,
    Theory,
    effective_network,
    fixed_point,
    gradient_rank,
    lazy,
    low_tensor_rank,
    mean_field,
    oscillator,
    outlier,
    resolvent_traces,
)  # fmt: skip
from tauflow.theory.base import overlay

RNG = np.random.default_rng(0)
BATCH = (2, 3)
TARGETS = np.array([0.5, 1.0, -2.0])


class Case(NamedTuple):
    """Arguments of one function: those that carry the batch, the rest, and the shape of the result for one item."""

    batched: dict
    fixed: dict = {}  # never changed
    inner: tuple | None = ()
    bad: str = ""  # the batched argument to spoil; the first by default


def matrices(rows=4, columns=4, scale=0.3):
    return scale * RNG.standard_normal((*BATCH, rows, columns))


def tau():
    return RNG.uniform(0, 0.1, BATCH)


def gain():
    return RNG.uniform(0, 0.8, BATCH)


def target():
    return RNG.choice(TARGETS, BATCH)


def curve():
    return np.sort(RNG.uniform(0, 1, (*BATCH, 5)))[..., ::-1]


def sigma():
    return RNG.uniform(0.5, 0.9, BATCH)


TIMES = {"t1": RNG.uniform(0, 3, BATCH), "t2": RNG.uniform(0, 3, BATCH)}


def leak():
    return RNG.uniform(0.2, 1.5, BATCH)


TURN = np.pad([[0.5, -0.8], [0.8, 0.5]], (0, 2))
NETWORK = {"u": RNG.standard_normal((*BATCH, 4)), "v": RNG.standard_normal((*BATCH, 4)), "M": matrices(4, 4, 0.1)}
SERIES = {"tau": tau(), "gain": gain(), "target": target()}
PATHS = {"adjoint": matrices(5, 4), "driving": matrices(5, 3)}
FACTORS = {"a": matrices(4, 2), "c": leak()[..., None] * [1.0, -2.0], "b": matrices(4, 2)}
PAIR = {"gain": gain(), "target": target()}
CASES = {
    analysis.singular_values: Case({"A": matrices(4, 3)}, inner=(3,)),
    analysis.eigenvalue_pair: Case({"W": matrices()}, inner=(2,)),
    analysis.eigenvalues: Case({"W": matrices()}, inner=(4,)),
    analysis.spectral_radius: Case({"W": matrices()}),
    analysis.spectral_abscissa: Case({"W": matrices()}),
    analysis.outliers: Case({"W": matrices()}, {"radius": 0.0}, inner=(4,)),
    analysis.participation_ratio: Case({"s": RNG.uniform(0.1, 1, (*BATCH, 5))}),
    analysis.variance_explained: Case({"s": curve()}, inner=(5,)),
    analysis.truncate: Case({"A": matrices(4, 3)}, {"rank": 2}, inner=(4, 3)),
    analysis.truncation_curve: Case(
        {"A": matrices(4, 3)}, {"loss": lambda A: (A**2).sum((-1, -2)), "ranks": range(3)}, inner=(3,)
    ),
    analysis.functional_rank: Case({"curve": curve(), "reference": np.full(BATCH, 2.0)}, {"threshold": 0.4}),
    analysis.shuffle_entries: Case({"W": matrices(4, 3)}, {"key": 0}, inner=None),
    fixed_point.beta: Case({"gain": gain()}),
    fixed_point.traces: Case({"gain": gain()}),
    fixed_point.coefficients: Case(SERIES),
    fixed_point.readout: Case(SERIES, {"order": 2}),
    fixed_point.readout_spread: Case({**SERIES, "neurons": np.full(BATCH, 100)}),
    fixed_point.singular_values: Case(SERIES),
    fixed_point.singular_value_spread: Case({**SERIES, "neurons": np.full(BATCH, 100)}),
    fixed_point.eigenvalue: Case(SERIES),
    fixed_point.weight_change: Case(
        {
            "tau": tau(), "W0": matrices(), "w": RNG.standard_normal((*BATCH, 4)),
            "m": RNG.standard_normal((*BATCH, 4)), "target": target(),
        }, inner=(4, 4),
    ),
    fixed_point.learning_time: Case(PAIR, {"threshold": 0.05}),
    fixed_point.weight_change_norm: Case(PAIR),
    fixed_point.shuffled_readout: Case(SERIES),
    fixed_point.shuffled_loss: Case(PAIR),
    fixed_point.zero_gain_coefficients: Case({"tau": tau(), "target": target()}, inner=(2, 2)),
    fixed_point.zero_gain_flow: Case({"tau": tau(), "target": target()}, inner=None),
    resolvent_traces.word_trace: Case({"gain": gain()}, {"i": 1, "j": 1}),
    resolvent_traces.word_trace_sum: Case({"gain": gain()}, {"i": 1}),
    resolvent_traces.power_trace: Case({"gain": gain()}, {"power": 3}),
    lazy.filter_flow: Case({"tau": tau()}, {"target": LeakyIntegrator(0.5), "sigma": 0.7, "t": [0.0, 1.0]}, inner=None),
    lazy.filter_covariance: Case({"tau": tau()}, {"sigma": 0.7, "t": [0.0, 1.0, 2.0]}, inner=(3, 3)),
    lazy.kernel_spread: Case({"sigma": sigma(), "neurons": np.full(BATCH, 100)}),
    mean_field.autocorrelation: Case({**TIMES, "sigma": sigma()}, {"sigma_u": 0.5}),
    mean_field.tangent_kernel: Case({**TIMES, "sigma": sigma()}, {"train": ("W", "W_in")}),
    mean_field.mercer_eigenvalues: Case({"sigma": sigma()}, {"n": 5}, inner=(5,)),
    mean_field.mercer_eigenfunctions: Case({"t": 10 * tau(), "sigma": sigma()}, {"n": 5}, inner=(5,)),
    mean_field.tangent_kernel_matrix: Case({"sigma": sigma()}, {"n": 5}, inner=(5, 5)),
    mean_field.kernel_trace: Case({"sigma": sigma()}),
    mean_field.learnable_range: Case({"sigma": sigma()}),
    mean_field.rkhs_norm: Case({"c_target": RNG.uniform(0.8, 1.2, BATCH), "sigma": sigma(), "omega": tau()}),
    outlier.alignment: Case(
        {
            "u0": RNG.standard_normal((*BATCH, 4)), "v0": RNG.standard_normal((*BATCH, 4)), "W0": matrices(),
            "c_target": leak(), "tau": tau(), "gamma0": leak(),
        }, inner=None,
    ),
    outlier.escape_time: Case({"c_target": leak(), "sigma": sigma(), "gamma0": leak()}),
    outlier.reduced_loss: Case({"u": leak(), "v": leak(), "c": leak(), "c_target": leak(), "gamma0": leak()}),
    outlier.reduced_flow: Case({"tau": tau(), "sigma": sigma(), "c_target": leak(), "gamma0": leak(), "c": leak()}),
    outlier.clamped_rate: Case({"tau": tau(), "c0": leak(), "c_target": leak()}),
    outlier.flow_field: Case({"u": leak(), "c": leak(), "c_target": leak(), "gamma0": leak()}),
    effective_network.effective_loss: Case({**NETWORK, "gamma0": leak()}, {"target": LeakyIntegrator(0.5)}),
    effective_network.effective_gradient: Case(
        {**NETWORK, "gamma0": leak()}, {"target": LeakyIntegrator(0.5)}, inner=None
    ),
    effective_network.effective_flow: Case(
        {"tau": tau()}, {**{name: value[0, 0] for name, value in NETWORK.items()}, "target": LeakyIntegrator(0.5)},
        inner=None,
    ),
    effective_network.dress: Case({**NETWORK, "sigma": sigma()}, {"letters": 1}, inner=None),
    oscillator.planted_plane: Case({"W": matrices(4, 4, 0.01) + TURN}, inner=(2, 4)),
    analysis.coupling: Case(
        {"W": matrices(4, 3), "u": RNG.standard_normal((*BATCH, 3)), "v": RNG.standard_normal((*BATCH, 4))}
    ),
    gradient_rank.adjoint_states: Case(
        {"W": matrices(), "states": matrices(5, 4), "D": matrices(2, 4), "y": matrices(1, 2)[..., 0, :]},
        {"phi": "tanh", "dt": 0.1}, inner=(5, 4),
    ),
    gradient_rank.decoder_gradient: Case(
        {"states": matrices(5, 4), "D": matrices(2, 4), "y": matrices(5, 2)},
        {"phi": "softplus", "dt": 0.1, "loss": "integrated"}, inner=(2, 4),
    ),
    gradient_rank.discrete_gradient: Case(PATHS, {"dt": 0.1}, inner=(4, 3)),
    gradient_rank.gradient_expansion: Case(PATHS, {"dt": 0.1}, inner=None),
    gradient_rank.operator_singular_values: Case({"path": matrices(5, 4)}, {"dt": 0.1}, inner=(4,)),
    gradient_rank.share_outside: Case({"change": matrices()}, {"basis": np.eye(4)[:, :2]}),
    gradient_rank.singular_value_bounds: Case(PATHS, {"dt": 0.1}, inner=(3,)),
    gradient_rank.sum_bounds: Case({"values": np.sort(abs(matrices(2, 4)))[..., ::-1]}, inner=(4,)),
    low_tensor_rank.eigenvalue_contributions: Case(FACTORS, inner=None),
    low_tensor_rank.factor_eigenvalues: Case(FACTORS, inner=(2,)),
    low_tensor_rank.rank_one_fixed_points: Case({"c": 3 * leak()}, inner=(3,)),
}  # fmt: skip
WITHOUT_ARRAYS = {resolvent_traces.pairings, gradient_rank.rank_bound, gradient_rank.momentum_weights}  # numbers in
WITHOUT_BATCH = {
    effective_network.project,
    gradient_rank.invariant_subspace,
}  # the size of its result depends on the numbers
WITHOUT_BATCH |= {  # of one tensor, or of lists of matrices: tests/test_tensor.py
    analysis.explained_by_rank, analysis.is_unique, analysis.kruskal_rank, analysis.match_factors, analysis.parafac,
    analysis.unfolding_explained,
}  # fmt: skip


def discovered():
    """Every public function of the modules whose contract this is."""
    modules = [analysis, effective_network, fixed_point, lazy, mean_field, oscillator, outlier, resolvent_traces]
    modules += [gradient_rank, low_tensor_rank]
    for module in modules:
        for name, thing in vars(module).items():
            own = inspect.isfunction(thing) and thing.__module__.startswith(("tauflow.analysis", "tauflow.theory"))
            if own and not name.startswith("_") and not thing.__module__.endswith("arguments"):
                yield thing


FUNCTIONS = sorted(set(discovered()) - WITHOUT_ARRAYS - WITHOUT_BATCH, key=lambda f: f.__name__)
every = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


def parts(result):
    """The arrays of a result, which may be a tuple of them."""
    return list(result) if isinstance(result, tuple) else [result]


def item(arguments, index):
    return {name: value[index] for name, value in arguments.items()}


def test_nothing_is_left_out():
    assert set(FUNCTIONS) == set(CASES), "every public function needs a case here"


@every
def test_shape_and_dtype_with_leading_batch_axes(function):
    case = CASES[function]
    together = parts(function(**case.batched, **case.fixed))
    one = parts(function(**item(case.batched, (1, 2)), **case.fixed))
    for whole, single in zip(together, one, strict=True):
        whole, single = np.asarray(whole), np.asarray(single)
        assert whole.dtype == (np.complex128 if whole.dtype.kind == "c" else np.float64)
        assert whole.shape == BATCH + single.shape
        if case.inner is not None:
            assert single.shape == case.inner
        if function is not analysis.shuffle_entries:
            np.testing.assert_allclose(whole[1, 2], single, rtol=1e-10, atol=1e-14)


@every
def test_takes_lists_and_jax_arrays(function):
    case = CASES[function]
    wanted = parts(function(**case.batched, **case.fixed))
    for convert in (lambda x: np.asarray(x).tolist(), jax.numpy.asarray):
        given = {name: convert(value) for name, value in case.batched.items()}
        for whole, again in zip(wanted, parts(function(**given, **case.fixed)), strict=True):
            assert isinstance(again, np.ndarray | np.generic)
            np.testing.assert_allclose(again, whole, rtol=1e-5, atol=1e-6)


@every
def test_does_not_change_its_arguments(function):
    case = CASES[function]
    before = {name: np.array(value, copy=True) for name, value in case.batched.items()}
    function(**case.batched, **case.fixed)
    for name, value in before.items():
        np.testing.assert_array_equal(case.batched[name], value)


SPOILED = {
    "text": lambda x: "many",
    "nothing": lambda x: None,
    "truth": lambda x: np.asarray(x) > 0,
    "complex": lambda x: x + 1j,
    "nan": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 0, np.nan, x),
    "infinite": lambda x: np.full_like(x, np.inf),
    "ragged": lambda x: [[1.0], [1.0, 2.0]],
}
OF_MATRICES = {
    f for f in FUNCTIONS if f.__module__.startswith("tauflow.analysis") and {"A", "W"} & set(CASES[f].batched)
} - {analysis.coupling}
FINE = {(f, name, "complex") for f in OF_MATRICES for name in ("A", "W")}
FINE |= {(analysis.functional_rank, "curve", kind) for kind in ("nan", "infinite")}  # as a truncated network may give


@every
@pytest.mark.parametrize("kind", SPOILED)
def test_bad_numbers_are_answered_in_one_sentence(function, kind):
    case = CASES[function]
    for name, value in case.batched.items():
        if (function, name, kind) in FINE:
            spoiled = {**case.batched, name: SPOILED[kind](value)}
            losses = {"loss": lambda A: (abs(A) ** 2).sum((-1, -2))} if "loss" in case.fixed else {}
            assert np.shape(parts(function(**spoiled, **{**case.fixed, **losses}))[0])[:2] == BATCH
            continue
        with pytest.raises(ValueError) as error:
            function(**{**case.batched, name: SPOILED[kind](np.asarray(value, float))}, **case.fixed)
        assert_sentence(error.value, name)


WRONG = {"gain": (1.0, -0.1, 7), "tau": (-1e-9,), "neurons": (0,), "order": (0, 4, 1.5, "3"), "threshold": (-0.1, 1.0)}
WRONG |= {"sigma": (0.0, 1.0, -0.1), "t": (-1.0,), "t1": (-1.0,), "t2": (-1.0,), "sigma_u": (-1.0,), "c_target": (0.0,)}
WRONG |= {"n": (0, 2.5), "train": ("W_rec", (), None), "tolerance": (0.0,), "gamma": (0.0, -1.0)}
WRONG |= {"c": (0.0, -1.0), "c0": (0.0,), "gamma0": (0.0, -1.0), "letters": (-1, 0.5)}
WRONG |= {"dt": (0.0, -1.0, (0.1,)), "phi": ("tan", None)}
WRONG |= {"i": (-1, 0.5), "power": (-1, 2.5), "rank": (-1, 0.5), "radius": (-0.1,), "key": (-1, None)}

ALLOWED = {(analysis.functional_rank, "threshold", 1.0), (outlier.clamped_rate, "c_target", 0.0)}
ALLOWED |= {(low_tensor_rank.rank_one_fixed_points, "c", c) for c in WRONG["c"]}


@every
def test_values_out_of_range_are_answered_in_one_sentence(function):
    case = CASES[function]
    for name in inspect.signature(function).parameters:
        for wrong in WRONG.get(name, ()):
            if (function, name, wrong) in ALLOWED:
                continue
            with pytest.raises(ValueError) as error:
                function(**{**case.batched, **case.fixed, name: wrong})
            assert_sentence(error.value, name)


@every
def test_shapes_that_do_not_fit_are_answered_in_one_sentence(function):
    case = CASES[function]
    names = list(case.batched)
    for name in names[1:]:
        with pytest.raises(ValueError) as error:
            function(**{**case.batched, name: np.repeat(case.batched[name], 2, axis=0)[:3]}, **case.fixed)
        assert_sentence(error.value, name)


def assert_sentence(error: ValueError, name: str) -> None:
    text = str(error)
    assert name in text and text.endswith(".") and "\n" not in text and len(text) < 300, text


@pytest.mark.parametrize("theory", THEORIES, ids=lambda theory: theory.name)
def test_theories_keep_their_protocol(theory):
    assert isinstance(theory, Theory)
    assert theory.name == type(theory).__name__ and theory.paper.isidentifier()
    documented = inspect.getdoc(type(theory)) or ""
    assert "Source:" in documented and theory.paper in documented


def test_an_overlay_predicts_only_where_all_assumptions_hold():
    class Toy:
        name, paper = "Toy", "none"

        def __init__(self, holds):
            self.holds = holds

        def check(self, run):
            return (Assumption("a", 0.0, 1.0, True, "Yes."), Assumption("b", 2.0, 1.0, self.holds, "Perhaps."))

        def predict(self, run):
            return "prediction"

    assert overlay(Toy(True), None).prediction == "prediction" and overlay(Toy(True), None).applies
    refused = overlay(Toy(False), None)
    assert isinstance(refused, Overlay) and refused.prediction is None and not refused.applies
    assert [a.holds for a in refused.assumptions] == [True, False]


def test_every_theory_function_cites_its_source():
    for function in FUNCTIONS:
        if function.__module__.startswith("tauflow.theory"):
            documented = inspect.getdoc(function) or ""
            assert "Assumes:" in documented and "Source:" in documented, function
            assert "this library" in documented or "Deviation from print:" in documented, function
