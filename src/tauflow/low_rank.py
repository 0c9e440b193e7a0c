"""Recurrent weights of low rank, kept as factors."""

from __future__ import annotations

from typing import Any, NamedTuple


class LowRank(NamedTuple):
    """Recurrent weights a diag(c) bᵀ, kept as factors.

    Attributes:
        a: Output directions, shape (n, R).
        c: Strengths, shape (R,), or (*trials, R) for weights that differ from trial to trial.
        b: Input directions, shape (n, R).

    Example:
        >>> import numpy as np
        >>> W = LowRank(a=np.eye(3)[:, :1], c=np.array([2.0]), b=np.eye(3)[:, 1:2])
        >>> W.dense()[0].tolist()
        [0.0, 2.0, 0.0]
    """

    a: Any
    c: Any
    b: Any

    def dense(self) -> Any:
        """The weights as one array, shape (n, n) or (*trials, n, n)."""
        a = self.a.reshape((1,) * (self.c.ndim - 1) + self.a.shape)
        scaled = a * self.c[..., None, :]  # (*trials, n, R)
        return scaled @ self.b.T
