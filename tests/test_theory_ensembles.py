"""FixedPointTheory on real ensembles: every member is read by its own network, objective and task."""

import jax
import numpy as np
import optax
import pytest

from tauflow.learning import Record, ensemble
from tauflow.networks import RateRNN
from tauflow.objectives import FixedPointLoss, MeanSquaredError
from tauflow.run import Run
from tauflow.tasks import FixedPoint
from tauflow.theory import FixedPointTheory, overlay
from tauflow.theory.fixed_point_assumptions import linear
from tauflow.theory.fixed_point_reading import target

THEORY = FixedPointTheory()


def linear_network(*, key, gain=0.3, phi="identity", noise=0.0, **_):
    return RateRNN.random(100, 1, 1, gain=gain, key=key, phi=phi, noise=noise)


def reaching(amplitude=1.0):
    return MeanSquaredError(FixedPoint(duration=40.0, target_amplitude=amplitude), trials=1)


def learn(grid, *, make_objective=lambda **point: reaching(), rate=lambda **point: 0.005, steps=8):
    """A real ensemble of linear networks of 100 units over a grid, one seed each."""
    return ensemble(
        linear_network,
        make_objective,
        lambda **point: optax.sgd(rate(**point)),
        keys=jax.random.split(jax.random.key(1), 1),
        grid=grid,
        steps=steps,
        train=("W",),
        record=Record(measurements=4),
    )


def failing(run):
    return [assumption.name for assumption in THEORY.check(run) if not assumption.holds]


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ({"phi": ["identity", "tanh"]}, "phi is tanh"),
        ({"phi": ["tanh", "identity"]}, "phi is tanh"),
        ({"noise": [0.0, 0.1]}, "the noise is 0.1"),
    ],
    ids=["identity first", "tanh first", "noise"],
)
def test_one_member_that_is_not_linear_is_found_and_the_others_are_not_blamed(grid, told):
    run = learn(grid)
    assert failing(run) == ["linear network"]
    assert told in next(a.sentence for a in THEORY.check(run) if not a.holds)
    assert overlay(THEORY, run).prediction is None
    (values,) = grid.values()
    assert [linear(run, i).holds for i in range(2)] == [value in ("identity", 0.0) for value in values]


def test_a_grid_of_gains_is_understood():
    run = learn({"gain": [0.0, 0.4]}, rate=lambda gain: 0.02 * (1 - gain**2) ** 2, steps=30)
    told = overlay(THEORY, run)
    assert [a.name for a in told.assumptions if not a.holds] == []
    prediction = told.prediction
    assert prediction.loss.shape == run.data.loss.shape and prediction.gain.values.tolist() == [0.0, 0.4]
    assert float((abs(prediction.loss - run.data.loss) / prediction.loss_band).max()) < 3


GRIDS = {
    "in the objective": ({"zhat": [0.5, 2.0]}, lambda zhat: FixedPointLoss(zhat)),
    "in the task": ({"zhat": [0.5, 2.0]}, lambda zhat: reaching(zhat)),
    "beside a label named target": ({"target": [0.25, 1.0]}, lambda target: FixedPointLoss(2 * target)),
}


@pytest.mark.parametrize("where", GRIDS)
def test_each_member_has_its_own_target(where):
    grid, make_objective = GRIDS[where]
    run = learn(grid, make_objective=make_objective)
    assert [target(run, i) for i in range(2)] == [0.5, 2.0]
    assert failing(run) == []
    data, prediction = run.data, THEORY.predict(run)
    assert meets(run, prediction)
    # As if the first member's objective were that of all, which is what the run's configuration says.
    shared = Run(data.drop_vars("objective_settings"))
    assert [target(shared, i) for i in range(2)] == [0.5, 0.5]
    assert not meets(run, THEORY.predict(shared))
    for i, wanted in enumerate((0.5, 2.0)):  # what the ensemble itself learned towards
        W, W_in, W_out = (data[name].values[i, 0] for name in ("W", "W_in", "W_out"))
        z = (W_out @ np.linalg.solve(np.eye(100) - W, W_in)).item()
        assert data.loss.values[i, 0] == pytest.approx((wanted - z) ** 2 / 2, rel=1e-3)


def meets(run, prediction):
    """Whether the loss of every member is within three bands of the prediction."""
    return bool((abs(prediction.loss - run.data.loss) < 3 * prediction.loss_band).all())


def test_members_that_share_a_target_need_no_coordinate():
    run = learn({"gain": [0.2, 0.4]}, make_objective=lambda gain: FixedPointLoss(1.5), steps=2)
    assert "objective_settings" not in run.data
    assert [target(run, i) for i in range(2)] == [1.5, 1.5]
