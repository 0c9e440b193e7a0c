r"""Strengths that vary smoothly over the trials of learning, and what they were in trials that were not recorded.

The strengths of a component over trials are $c = S\bar c + o$ with a learned offset $o$, and $\bar c \sim N(0, I)$ at
the start. $S$ comes from a covariance $A$ over the true numbers of the trials, so that a gap in the recording is a gap
in $A$. In two forms, with their covariances of $c$:

$$S = \mathrm{chol}(A + \sigma^2 I): \ A + \sigma^2 I, \qquad
  S = L + \sigma I,\ L = \mathrm{chol}(A): \ A + \sigma(L + L^\top) + \sigma^2 I .$$

The first is a smooth function of trial and white noise independent of it; in the second the two have the same source.
In both the mean of the smooth part in other trials, given those fitted, is $A_{*}M^{-\top}\bar c$ with $M = S$ in the
first and $M = L$ in the second: $A_*(SS^\top)^{-1}(c - o)$ in the first, and in the second
$A_*L^{-\top}(L + \sigma I)^{-1}(c - o)$, with the other trials behind the fitted ones in the order of the factor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tauflow.networks.checks import is_number

FORMS = ("cholesky", "sum")
# Added to the diagonal of A, relative to it, before L: smooth covariances are singular in floating point.
_JITTER = 1e-9


def rational_quadratic(
    trial_ids: ArrayLike,
    others: ArrayLike | None = None,
    *,
    length: float = 15.0,
    scale: float = 0.1,
    shape: float = 1.0,
) -> NDArray[np.float64]:
    r"""Rational-quadratic covariance of trials, $s^2\,(1 + (k - k')^2/(2 \beta l^2))^{-\beta}$.

    Args:
        trial_ids: True numbers of the trials in their session, gaps included, shape (trial,).
        others: Numbers of other trials, shape (other,); those of `trial_ids` by default.
        length: Scale of smoothness $l > 0$, in trials.
        scale: Standard deviation $s > 0$, in units of the strengths.
        shape: $\beta > 0$; a Gaussian covariance for large ones.

    Returns:
        Covariances, shape (trial, other).

    Raises:
        ValueError: If numbers of trials are not finite or a parameter is not > 0.

    Source: pellegrino2023, supplement A.1. Deviation from print: 2l there is $2l^2$ here, as in the authors' code;
    with 2l the distance at which trials differ would not be of the order of l.

    Example:
        >>> rational_quadratic([0, 1], length=1.0, scale=1.0).round(3)
        array([[1.   , 0.667], [0.667, 1. ]])
    """
    for name, value in (("length", length), ("scale", scale), ("shape", shape)):
        if not (is_number(value) and 0 < value < np.inf):
            raise ValueError(f"{name} is {value!r}; it must be a number > 0.")
    rows = _vector("trial_ids", trial_ids)
    columns = rows if others is None else _vector("others", others)
    distance = (rows[:, None] - columns[None]) / length  # (trial, other)
    return scale**2 * (1 + distance**2 / (2 * shape)) ** -shape


def block_by_epoch(A: ArrayLike, epochs: Any, other_epochs: Any = None) -> NDArray[np.float64]:
    """The covariance with 0 between trials of different epochs: strengths may jump from one to the next.

    Args:
        A: Covariances, shape (trial, other).
        epochs: Epoch of each trial, in names or numbers, shape (trial,).
        other_epochs: Epochs of the others, shape (other,); `epochs` by default.

    Returns:
        Covariances, shape (trial, other).

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> block_by_epoch(np.ones((3, 3)), ["before", "before", "after"])[0]
        array([1., 1., 0.])
    """
    A = np.asarray(A, np.float64)
    rows = np.asarray(epochs)
    columns = rows if other_epochs is None else np.asarray(other_epochs)
    if A.shape != (*rows.shape, *columns.shape) or A.ndim != 2:
        raise ValueError(f"A has shape {A.shape} and there are epochs of {rows.shape} and {columns.shape} trials.")
    return np.where(rows[:, None] == columns[None], A, 0.0)


def smoothing_matrix(A: ArrayLike, sigma: float = 0.1, form: str = "cholesky") -> NDArray[np.float64]:
    r"""The matrix $S$ that makes strengths $S\bar c$ of white numbers: see the module's docstring.

    Args:
        A: Covariance over trials, shape (trial, trial).
        sigma: Standard deviation of what is not smooth, > 0, in units of the strengths.
        form: "cholesky" for $\mathrm{chol}(A + \sigma^2 I)$, "sum" for $L + \sigma I$.

    Returns:
        Lower-triangular matrix, shape (trial, trial).

    Raises:
        ValueError: If A is no covariance, `sigma` not > 0 or `form` unknown.

    Source: pellegrino2023, supplement A.1 for "sum"; "cholesky" is what the authors' code does. Deviation from print:
    for "sum", 1e-9 of the mean variance is added to that of each trial, without which L does not exist in
    floating point.

    Example:
        >>> smoothing_matrix([[9.0]], 4.0), smoothing_matrix([[9.0]], 4.0, "sum").round(6)
        (array([[5.]]), array([[7.]]))
    """
    A = np.asarray(A, np.float64)
    if A.ndim != 2 or A.shape[0] != A.shape[1] or not np.allclose(A, A.T):
        raise ValueError(f"A has shape {A.shape}; it must be a symmetric matrix, (trial, trial).")
    if not (is_number(sigma) and 0 < sigma < np.inf):
        raise ValueError(f"sigma is {sigma!r}; it must be a number > 0.")
    _check_form(form)
    same = np.eye(len(A))
    extra = sigma**2 if form == "cholesky" else _JITTER * np.trace(A) / max(len(A), 1)
    try:
        root = np.linalg.cholesky(A + extra * same)
    except np.linalg.LinAlgError:
        least = np.linalg.eigvalsh(A).min()
        raise ValueError(f"A has the eigenvalue {least:.3g}; a covariance has none below 0.") from None
    return root if form == "cholesky" else root + sigma * same


def predict_factors(
    c_latent: ArrayLike,
    c_offset: ArrayLike,
    smoothing: ArrayLike,
    A_new: ArrayLike,
    *,
    sigma: float = 0.1,
    form: str = "cholesky",
) -> NDArray[np.float64]:
    r"""Strengths in trials that were not fitted: the mean of their smooth part given those that were.

    Args:
        c_latent: Fitted $\bar c$, shape (trial, R).
        c_offset: Fitted offsets, shape (R,).
        smoothing: $S$ of the fitted trials, shape (trial, trial).
        A_new: Covariances of new trials (rows) and fitted ones, shape (new, trial), by the same rule as A.
        sigma: That of `smoothing`.
        form: That of `smoothing`.

    Returns:
        Strengths, shape (new, R). Far from all fitted trials they are the offsets.

    Raises:
        ValueError: If shapes do not fit or `form` is unknown.

    Assumes: $\bar c$ is a draw of N(0, I), and learning went on in the missing trials as in the others.
    Source: pellegrino2023, supplement A.1 (missing trials); the two covariances as in the module's docstring.

    Example:
        >>> S = smoothing_matrix([[3.0]], 1.0)  # variance 3 of the smooth part and 1 of noise
        >>> predict_factors([[1.0]], [0.0], S, [[3.0]], sigma=1.0)[0, 0]  # 3/4 of the fitted strength, which is 2
        np.float64(1.5)
    """
    from scipy.linalg import solve_triangular

    _check_form(form)
    c, offset, S, A = (np.asarray(value, np.float64) for value in (c_latent, c_offset, smoothing, A_new))
    fits = c.ndim == A.ndim == 2 and S.shape == (len(c), len(c)) and A.shape[1] == len(c)
    if not fits or offset.shape != c.shape[1:]:
        raise ValueError(
            f"c_latent is {c.shape}, c_offset {offset.shape}, smoothing {S.shape}, A_new {A.shape}; they must be "
            "(trial, R), (R), (trial, trial), (new, trial)."
        )
    root = S if form == "cholesky" else S - sigma * np.eye(len(S))
    return A @ solve_triangular(root, c, trans="T", lower=True) + offset


def _vector(name: str, values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be a row of finite numbers, one per trial; its shape is {numbers.shape}.")
    return numbers


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; it must be 'cholesky' or 'sum'.")
