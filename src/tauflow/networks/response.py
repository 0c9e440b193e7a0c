"""What a network answers."""

from __future__ import annotations

from typing import NamedTuple

import jax


class Response(NamedTuple):
    """What a network answers to inputs.

    Attributes:
        states: x after each step, shape (time, *trials, n).
        outputs: Readout after each step, shape (time, *trials, n_out).
    """

    states: jax.Array
    outputs: jax.Array
