r"""Target filters that are sums of decaying exponentials, $f_*(t) = \mathrm{Re} \sum_j a_j e^{-p_j t}$.

With $\mathrm{Re}\,p_j > 0$ everything about them has a closed form. Since
$\mathrm{Re}\,z\,\mathrm{Re}\,w = \tfrac12 \mathrm{Re}(zw + z\bar w)$,

$$\int_0^\infty f_*^2\,dt = \frac12\,\mathrm{Re} \sum_{jk}
\left(\frac{a_j a_k}{p_j + p_k} + \frac{a_j \bar a_k}{p_j + \bar p_k}\right),$$

which is $1/2c$ for $e^{-ct}$ and $1/4c + c/4(c^2+\omega^2)$ for $e^{-ct}\cos\omega t$. A linear system with this filter
has one state for every real term, and the real and imaginary part of $e^{-pt}$ for every other one.
"""

from __future__ import annotations

import abc
from numbers import Complex
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tauflow.analysis.arguments import FloatArray
from tauflow.tasks.filters import FilterTask, Realisation, as_times
from tauflow.tasks.settings import check_amplitude, is_number, plain, setting


class Terms(NamedTuple):
    """The terms of a filter, Re sum_j a_j exp(-p_j t).

    Attributes:
        coefficients: a_j, shape (term,), complex128.
        rates: p_j, shape (term,), complex128, per membrane time.
    """

    coefficients: NDArray[np.complex128]
    rates: NDArray[np.complex128]


class ExponentialFilter(FilterTask):
    """Answer white noise with its convolution with a sum of exponentials. Subclasses say which."""

    @abc.abstractmethod
    def terms(self) -> Terms:
        """Return the terms of the filter, with the factor `target_amplitude`."""

    def filter(self, t: ArrayLike) -> FloatArray:
        """Evaluate the target filter, as in `FilterTask.filter`."""
        a, p = self.terms()
        decay = np.exp(-p * as_times(t)[..., None])  # (..., term)
        return np.asarray((a * decay).real.sum(axis=-1), np.float64)

    def step_response(self, t: ArrayLike) -> FloatArray:
        """Integrate the target filter, as in `FilterTask.step_response`."""
        a, p = self.terms()
        integral = -np.expm1(-p * as_times(t)[..., None]) / p  # (..., term)
        return np.asarray((a * integral).real.sum(axis=-1), np.float64)

    @property
    def squared_norm(self) -> float:
        """The integral of the squared filter over all times."""
        a, p = self.terms()
        same = np.outer(a, a) / (p[:, None] + p)  # (term, term)
        conjugate = np.outer(a, a.conj()) / (p[:, None] + p.conj())  # (term, term)
        return float((same + conjugate).real.sum() / 2)

    def realisation(self) -> Realisation:
        """Return a real linear system with this filter."""
        a, p = self.terms()
        size = np.where(p.imag == 0, 1, 2)
        A, b, c = np.zeros((size.sum(), size.sum())), np.zeros(size.sum()), np.zeros(size.sum())
        for first, k, aj, pj in zip(np.cumsum(size) - size, size, a, p, strict=True):
            block = slice(first, first + k)
            A[block, block] = np.array([[-pj.real, pj.imag], [-pj.imag, -pj.real]])[:k, :k]
            b[first] = 1.0
            c[block] = np.array([aj.real, -aj.imag])[:k]
        return Realisation(A, b, c)


class LeakyIntegrator(ExponentialFilter):
    """Integrate white noise with a leak: the filter is exp(-c t).

    Attributes:
        c: The leak, > 0, per membrane time; the memory lasts 1/c.

    Source: bordelon2025, section II A; 0.2 is that of Fig. 1.

    Example:
        >>> task = LeakyIntegrator(0.25)
        >>> task.filter([0.0, 4.0]).round(4), task.squared_norm
        (array([1.    , 0.3679]), 2.0)
    """

    name: ClassVar[str] = "leaky-integrator"
    tags: ClassVar[tuple[str, ...]] = ("filter", "memory", "linear")

    c: float = setting(0.2, positional=True)

    def check(self) -> None:
        """Check all settings.

        Raises:
            ValueError: If `c` is not a number > 0, or `target_amplitude` is not a number.
        """
        _check_leak(self.c)
        check_amplitude("target_amplitude", self.target_amplitude)

    def terms(self) -> Terms:
        """Return the one term."""
        return _terms(self.target_amplitude, self.c)


class DampedOscillator(ExponentialFilter):
    """Ring with white noise: the filter is the damped oscillation exp(-c t) cos(omega t).

    Attributes:
        c: The damping, > 0, per membrane time.
        omega: The frequency, in radians per membrane time.

    Source: bordelon2025, section II B; 0.1 and 1 are those of Fig. 3.

    Example:
        >>> DampedOscillator(0.5, 2.0).realisation().A
        array([[-0.5, -2. ],
               [ 2. , -0.5]])
    """

    name: ClassVar[str] = "oscillator"
    tags: ClassVar[tuple[str, ...]] = ("filter", "oscillation", "linear")

    c: float = setting(0.1, positional=True)
    omega: float = setting(1.0, positional=True)

    def check(self) -> None:
        """Check all settings.

        Raises:
            ValueError: If `c` is not a number > 0, or `omega` or `target_amplitude` is not a number.
        """
        _check_leak(self.c)
        check_amplitude("omega", self.omega)
        check_amplitude("target_amplitude", self.target_amplitude)

    def terms(self) -> Terms:
        """Return the one term, whose rate is c - i omega."""
        return _terms(self.target_amplitude, self.c - 1j * self.omega)


def as_pairs(value: Any) -> Any:
    """Turn numbers, real or complex, into pairs (real part, imaginary part), which can be hashed and saved.

    Example:
        >>> as_pairs([0.5, 1 - 2j, (3, 4)])
        ((0.5, 0.0), (1.0, -2.0), (3, 4))
    """
    value = plain(value)
    if not isinstance(value, tuple):
        return value
    return tuple((float(z.real), float(z.imag)) if _is_complex(z) else z for z in value)


class ExponentialSum(ExponentialFilter):
    r"""Filter white noise with a sum of exponentials, real or complex.

    The filter is $f_*(t) = \mathrm{Re} \sum_j a_j e^{-p_j t}$.

    Attributes:
        coefficients: a_j, real or complex numbers; kept as pairs (real part, imaginary part).
        rates: p_j, as many, likewise, with real parts > 0, per membrane time.

    Source: none; it generalises the filters of bordelon2025, which are those of one term.

    Example:
        >>> task = ExponentialSum([1.0, -1.0], [0.5, 0.5 + 1j])
        >>> task.filter([0.0, np.pi]).round(4)
        array([0.    , 0.4158])
        >>> task.rates
        ((0.5, 0.0), (0.5, 1.0))
    """

    name: ClassVar[str] = "exponential-sum"
    tags: ClassVar[tuple[str, ...]] = ("filter", "memory", "linear")

    coefficients: tuple[tuple[float, float], ...] = setting((1.0, -1.0), positional=True, converter=as_pairs)
    rates: tuple[tuple[float, float], ...] = setting((0.2, 1.0), positional=True, converter=as_pairs)

    def check(self) -> None:
        """Check all settings.

        Raises:
            ValueError: If there is no term, the lengths differ, an entry is not a finite number, or a rate has a
                real part <= 0.
        """
        for name in ("coefficients", "rates"):
            _check_pairs(name, getattr(self, name))
        if len(self.coefficients) != len(self.rates):
            raise ValueError(
                f"coefficients and rates have {len(self.coefficients)} and {len(self.rates)} entries; give one rate "
                "for each coefficient."
            )
        for j, (decay, turn) in enumerate(self.rates):
            if decay <= 0:
                raise ValueError(
                    f"rates[{j}] is {complex(decay, turn):g}; its real part must be > 0, or the filter would not decay "
                    "and not be square-integrable."
                )
        check_amplitude("target_amplitude", self.target_amplitude)

    def terms(self) -> Terms:
        """Return the terms."""
        a, p = (
            np.array([complex(*pair) for pair in pairs], np.complex128) for pairs in (self.coefficients, self.rates)
        )
        return Terms(self.target_amplitude * a, p)


def _terms(coefficient: complex, rate: complex) -> Terms:
    return Terms(np.array([coefficient], np.complex128), np.array([rate], np.complex128))


def _check_leak(c: Any) -> None:
    if not is_number(c) or c <= 0:
        raise ValueError(f"c is {c!r}; it must be a number > 0, or the filter would not be square-integrable.")


def _is_complex(value: Any) -> bool:
    return isinstance(value, Complex) and not isinstance(value, bool)


def _check_pairs(name: str, pairs: Any) -> None:
    wanted = f"finite numbers, real or complex, for example {name}=(0.2, 0.1 + 1j)"
    if not isinstance(pairs, tuple) or not pairs:
        raise ValueError(f"{name} is {pairs!r}; it must be a sequence of {wanted}.")
    for j, pair in enumerate(pairs):
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(is_number(part) for part in pair):
            raise ValueError(f"{name}[{j}] is {pair!r}; {name} must be {wanted}.")
