"""Mean-field gradient flow of whole networks in units where N does not appear, for tests of what is reduced from it."""

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import eig

from tauflow.theory.effective_network import effective_gradient


def random_network(neurons, sigma=1.0, seed=0):
    """u/√N, v/√N and W/√N with entries from N(0, sigma²/N)."""
    rng = np.random.default_rng(seed)
    scale = sigma / np.sqrt(neurons)
    u, v = scale * rng.standard_normal((2, neurons))
    return u, v, scale * rng.standard_normal((neurons, neurons))


def planted_network(neurons, sigma, c, omega, amplitude=0.5, seed=0):
    """A network with a planted pair, u = v in its plane, and that plane, shape (2, N)."""
    rng = np.random.default_rng(seed)
    plane = np.linalg.qr(rng.standard_normal((neurons, 2)))[0].T
    turn = np.array([[1 - c, omega], [-omega, 1 - c]])
    bulk = sigma / np.sqrt(neurons) * rng.standard_normal((neurons, neurons))
    return amplitude * plane[0], amplitude * plane[0], bulk + plane.T @ turn @ plane, plane


def full_flow(u, v, M, target, times, gamma0=1.0):
    """u, v and M of the whole network at these times, by an explicit method of order 5."""
    n = len(u)

    def slope(_, y):
        parts = effective_gradient(y[:n], y[n : 2 * n], y[2 * n :].reshape(n, n), target, gamma0)
        return -(gamma0**2) * np.concatenate([part.ravel() for part in parts])

    start = np.concatenate([u, v, M.ravel()])
    y = solve_ivp(slope, (0, times[-1]), start, "RK45", t_eval=times, rtol=1e-8, atol=1e-10).y.T
    return y[:, :n], y[:, n : 2 * n], y[:, 2 * n :].reshape(-1, n, n)


def along(u, v, M):
    """v'Mu / |v||u| at every time."""
    return np.einsum("ti,tij,tj->t", v, M, u) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)


def leading_pair(M):
    """The eigenvalues of largest modulus, Im >= 0 first, by SciPy."""
    values = eig(M, right=False)
    pair = values[np.argsort(-abs(values))[:2]]
    return pair[np.argsort(-pair.imag)]


def slope(x, y):
    """Log-log slopes between neighbours."""
    return np.diff(np.log(y)) / np.diff(np.log(x))
