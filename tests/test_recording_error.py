"""The loss of a fit: against NumPy and SciPy entry by entry, with its masks, trials left out and penalty."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import poisson

from tauflow.networks import LowTensorRankRNN
from tauflow.objectives import RecordingError

TIME, TRIALS, NEURONS = 7, 10, 4
WHICH = np.arange(TRIALS) % 3
RNG = np.random.default_rng(1)
MASKS = RNG.random((2, 2, TIME, TRIALS, NEURONS)) < 0.5  # (kind, mask, ...)


def network(output="identity"):
    return LowTensorRankRNN.random(
        12,
        NEURONS,
        rank=2,
        conditions=3,
        trial_ids=range(TRIALS),
        key=jax.random.key(0),
        output=output,
        dtype="float64",
    )


def objective(loss="mse", mask=0, **settings):
    activity = RNG.poisson(1.0, (TIME, TRIALS, NEURONS)) if loss == "poisson" else RNG.normal(size=MASKS.shape[2:])
    return RecordingError(activity.astype(float), WHICH, *MASKS, mask, loss=loss, **settings)


@pytest.mark.parametrize("mask", [0, 1])
def test_squared_error_entry_by_entry(mask):
    net, loss = network(), objective(mask=mask, penalty=0.3)
    y = np.asarray(net(WHICH, TIME).outputs)
    squares = (y - np.asarray(loss.activity)) ** 2
    wanted = squares[MASKS[0, mask]].mean() + 0.3 * (np.asarray(net.c_latent) ** 2).mean()
    assert float(loss(net)) == pytest.approx(wanted, rel=1e-12)
    errors = loss.errors(net)
    for kind, found in zip(MASKS, errors, strict=True):
        np.testing.assert_allclose(found, [squares[each].mean() for each in kind], rtol=1e-12)


def test_poisson_loss_is_the_likelihood_up_to_a_constant():
    loss = objective("poisson", penalty=0.0)
    one, two = network("softplus"), eqx.tree_at(lambda n: n.bias, network("softplus"), jnp.full(NEURONS, 0.7))
    counts = np.asarray(loss.activity)
    likelihoods = [
        poisson.logpmf(counts, np.asarray(net(WHICH, TIME).outputs))[MASKS[0, 0]].mean() for net in (one, two)
    ]
    assert float(loss(one) - loss(two)) == pytest.approx(likelihoods[1] - likelihoods[0], rel=1e-9)


@pytest.mark.parametrize("loss", ["mse", "poisson"])
def test_gradient_is_that_of_the_plain_formula(loss):
    goal = objective(loss, penalty=0.1, trial_dropout=0.0)
    net = network("softplus" if loss == "poisson" else "identity")

    def plain(net):
        y, target = net(WHICH, TIME).outputs, goal.activity
        losses = y - target * jnp.log(y) if loss == "poisson" else (y - target) ** 2
        return jnp.sum(jnp.where(MASKS[0, 0], losses, 0)) / int(MASKS[0, 0].sum()) + 0.1 * jnp.mean(net.c_latent**2)

    found, wanted = eqx.filter_grad(lambda n: goal(n))(net), eqx.filter_grad(plain)(net)
    for name in ("a", "b", "c_latent", "c_offset", "z0", "W_out", "bias"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-8, atol=1e-12, err_msg=name)
        assert np.abs(getattr(found, name)).max() > 0


def test_a_share_of_the_trials_is_left_out_with_each_key():
    net, loss = network(), objective(trial_dropout=0.3, penalty=0.0)
    squares = (np.asarray(net(WHICH, TIME).outputs) - np.asarray(loss.activity)) ** 2
    for seed in range(3):
        key = jax.random.key(seed)
        kept = np.asarray(jax.random.permutation(key, TRIALS)) >= 3
        assert kept.sum() == 7
        wanted = squares[MASKS[0, 0] & kept[:, None]].mean()
        assert float(loss(net, key)) == pytest.approx(wanted, rel=1e-12)
    assert float(loss(net, jax.random.key(0))) != float(loss(net, jax.random.key(1))) != float(loss(net))


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"loss": "mae"}, "loss is 'mae'; it must be 'mse' or 'poisson'."),
        ({"trial_dropout": 1.0}, "trial_dropout is 1.0; it must be a share of the trials in [0, 1)."),
        ({"penalty": -1.0}, "penalty is -1.0; it must be a number >= 0."),
        ({"train": MASKS[0, 0]}, "train is bool of shape (7, 10, 4); it must be true or false, of shape (mask"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(change, sentence):
    arguments = {"activity": np.zeros(MASKS.shape[2:]), "conditions": WHICH, "train": MASKS[0], "test": MASKS[1]}
    with pytest.raises(ValueError) as error:
        RecordingError(**(arguments | change))
    assert str(error.value).startswith(sentence)
