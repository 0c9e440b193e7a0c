"""Forward pass and gradients of the rate network against an eager PyTorch loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tauflow.networks import RateRNN

torch = pytest.importorskip("torch")

PHIS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "identity": lambda x: x,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "sigmoid": torch.sigmoid,
}


def torch_loop(W, W_in, W_out, inputs, phi, dt):
    """States and outputs, step by step."""
    f, x = PHIS[phi], torch.zeros(inputs.shape[1], W.shape[0], dtype=torch.float64)
    states = []
    for u in inputs:
        x = (1 - dt) * x + dt * (f(x) @ W.T + u @ W_in.T)  # (trial, n)
        states.append(x)
    states = torch.stack(states)
    return states, f(states) @ W_out.T


@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("dt", [0.3, 1.0])
def test_states_outputs_and_gradients_agree_with_pytorch(phi, dt):
    network = RateRNN.random(30, 2, 3, gain=1.2, key=jax.random.key(4), phi=phi, dt=dt, dtype="float64")
    rng = np.random.default_rng(5)
    inputs, targets = rng.normal(size=(25, 6, 2)), rng.normal(size=(25, 6, 3))

    def loss(network):
        response = network(jnp.asarray(inputs))
        return 0.5 * jnp.mean((response.outputs - targets) ** 2), response

    gradient, response = jax.jit(jax.grad(loss, has_aux=True))(network)

    weights = [torch.tensor(np.asarray(a), requires_grad=True) for a in (network.W, network.W_in, network.W_out)]
    states, outputs = torch_loop(*weights, torch.tensor(inputs), phi, dt)
    (0.5 * ((outputs - torch.tensor(targets)) ** 2).mean()).backward()

    ours = [response.states, response.outputs, gradient.W, gradient.W_in, gradient.W_out]
    theirs = [states.detach(), outputs.detach(), *(weight.grad for weight in weights)]
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=1e-11 * float(want.abs().max()))
