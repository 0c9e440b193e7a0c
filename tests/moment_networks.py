"""The reference for filter learning: finite linear networks in plain NumPy, with exact loss, gradient and flow.

With e_k(t) = e^-t t^k / k! the filter of a network is kappa sum_k (v.J^k u) e_k(t), J = W/sqrt(n). Loss and gradient
are sums of these moments, cut off where the k-th power of sigma is negligible.
"""

from functools import cached_property

import numpy as np
from scipy.special import binom, factorial

ALL = ("W", "W_in", "W_out")


class Reference:
    """Networks of weights of standard deviation `sigma` that learn the filter e^-ct."""

    def __init__(self, sigma: float, c: float, powers: int):
        self.sigma, self.c, self.powers = sigma, c, powers
        self.order = np.add.outer(np.arange(powers), np.arange(powers))
        self.overlap = binom(self.order, np.arange(powers)) / 2.0 ** (self.order + 1)  # of e_k and e_l
        self.projected = (1 / (1 + c)) ** np.arange(1, powers + 1)  # of e_k and the target

    @cached_property
    def next_order(self) -> np.ndarray:
        return np.minimum(self.order + 1, self.powers - 1)

    def monomials(self, t: np.ndarray) -> np.ndarray:
        """e_k(t), shape (time, power)."""
        k = np.arange(self.powers)
        return np.exp(-t[:, None]) * t[:, None] ** k / factorial(k)

    def states(self, W: np.ndarray, start: np.ndarray) -> np.ndarray:
        """W^k start, shape (power, n)."""
        rows = [start]
        for _ in range(self.powers - 1):
            rows.append(W @ rows[-1])
        return np.array(rows)

    def loss_and_gradient(self, J, u, v, gamma):
        """The loss, the filter's coefficients in e_k, and the gradients by J, u and v."""
        kappa = 1 / (gamma * np.sqrt(len(u)))
        U, V = self.states(J, u), self.states(J.T, v)
        m = kappa * (U @ v)
        slope = 2 * kappa * (self.overlap @ m - self.projected)  # (power,), by v.J^k u
        D = np.where(self.order + 1 < self.powers, slope[self.next_order], 0.0)
        loss = m @ self.overlap @ m - 2 * m @ self.projected + 1 / (2 * self.c)
        return loss, m, (V.T @ D @ U, slope @ V, slope @ U)

    def network(self, n: int, seed: int):
        """J, u and v of a random network."""
        rng = np.random.default_rng([n, seed])
        return self.sigma * rng.standard_normal((n, n)) / np.sqrt(n), *(self.sigma * rng.standard_normal((2, n)))

    def follow(self, theta, gamma, taus, train=ALL, per_interval=1):
        """Gradient flow with rates gamma^2 by Runge-Kutta 4: losses, coefficients and weights (J, u, v) at `taus`."""
        speed = gamma**2 * np.array([("W" in train) / len(theta[1]), "W_in" in train, "W_out" in train])

        def velocity(theta):
            return [-s * g for s, g in zip(speed, self.loss_and_gradient(*theta, gamma)[2], strict=True)]

        def moved(by, k):
            return [x + by * d for x, d in zip(theta, k, strict=True)]

        found = [(*self.loss_and_gradient(*theta, gamma)[:2], theta)]
        for h in np.diff(taus) / per_interval:
            for _ in range(per_interval):
                k1 = velocity(theta)
                k2 = velocity(moved(h / 2, k1))
                k3 = velocity(moved(h / 2, k2))
                k4 = velocity(moved(h, k3))
                slopes = [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True)]
                theta = moved(h, slopes)
            found.append((*self.loss_and_gradient(*theta, gamma)[:2], theta))
        losses, coefficients, weights = zip(*found, strict=True)
        return np.array(losses), np.array(coefficients), weights
