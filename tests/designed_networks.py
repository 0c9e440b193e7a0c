"""Small networks on which the scalar products of the fixed-point theory are exactly those of a large one."""

from functools import cache
from typing import NamedTuple

import numpy as np


class Network(NamedTuple):
    W0: np.ndarray
    w: np.ndarray
    m: np.ndarray
    shuffled: np.ndarray


@cache
def designed(gain: float, extra: int = 2) -> Network:
    """A network of 4 + extra units with the large-N scalar products, turned by a random rotation."""
    rng = np.random.default_rng(7)
    b = 1 / (1 - gain**2)
    c = b * np.sqrt(b**2 - 1)
    L = np.linalg.cholesky(np.array([[b, c], [c, b**3]]))
    Q = _turn(b**2 * np.array([1 / b, c / b**2]), L.T[:, 0], b**2)
    blocks = [L @ Q, (L @ Q).T]  # BB' = S in the block of w, B'B = S in that of m
    p, q = blocks[0][0], blocks[0].T @ (L @ L.T)[0]  # B'w and B'BB'w
    pairs = np.column_stack([p, q if c else [-p[1], p[0]]])
    first = np.array([1.0, b**2 if c else 0.0]) @ np.linalg.inv(pairs)
    second = np.array([(b**2 - b) / c if c else 0.0, 3.0 if c else 1.0]) @ np.linalg.inv(pairs)
    after = np.stack([first, second])  # w.Bs B'w = 1 and w.BB'Bs B'w = w.Bs B'BB'w = beta^2
    n = 4 + extra
    B, Bs = np.eye(n), np.eye(n)
    for k, (block, other) in enumerate(zip(blocks, (after, after.T), strict=True)):
        B[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = block
        Bs[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = other
    B[4:, 4:] = np.eye(extra) + 0.2 * gain * rng.standard_normal((extra, extra))
    turn = np.linalg.qr(rng.standard_normal((n, n)))[0]
    W0, Ws = (turn @ (np.eye(n) - np.linalg.inv(M)) @ turn.T for M in (B, Bs))
    return Network(W0, turn[:, 0], turn[:, 2], Ws)


def _turn(goal: np.ndarray, start: np.ndarray, product: float) -> np.ndarray:
    """Rotation Q with goal . Q' start = product."""
    between = np.arccos(np.clip(product / (np.linalg.norm(goal) * np.linalg.norm(start)), -1, 1))
    angle = np.arctan2(start[1], start[0]) - np.arctan2(goal[1], goal[0]) - between
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
