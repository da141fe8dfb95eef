"""What monitors measure: energy, velocity, sharpness, and the sharpness up to which a step is stable.

For gradients that are divided by a diagonal D, as in INNAprop, the dynamics in y = D^(1/2) theta are those of INNA with
the loss as a function of y. So with D held constant (D = 1 for INNA),

    energy       E = 2 (1 + alpha beta) J(theta) + <v, D v>
    sharpness    h = largest eigenvalue of D^(-1/2) Hess J D^(-1/2), which has the eigenvalues of D^(-1) Hess J

E never grows along the continuous dynamics, and a step is stable on the quadratic model of the loss iff h is below
`inna_core.dynamics.largest_stable_sharpness`. Weight decay is left out of both.

The sharpness is estimated by k steps of Lanczos' method. They cost k products of the Hessian with a vector, as k steps
of the power method do, but the estimate is never below the power method's from the same start, and large negative
eigenvalues do not disturb it. Up to rounding the estimate never exceeds h.

| symbol | meaning                                          | name in code                |
|--------|--------------------------------------------------|-----------------------------|
| J      | loss                                             | ``loss``                    |
| v      | velocity                                         | ``velocity``                |
| D      | 1, or INNAprop's sqrt(s / (1 - sigma^k)) + eps   | ``INNAprop.denominators``   |
| q_j    | Lanczos vectors                                  | ``q``                       |
| a, b   | diagonal and off-diagonal of Lanczos' matrix     | ``a``, ``b``                |

References: Castera et al., JMLR 22(134), 2021, section 3 (energy). J. Cohen et al., Gradient descent on neural networks
typically occurs at the edge of stability, ICLR 2021; Adaptive gradient methods at the edge of stability,
arXiv:2207.14484 (sharpness, scaled sharpness). G. Golub, C. Van Loan, Matrix Computations, section 10.1 (Lanczos).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from inna_core._validation import checked_count, squared_modulus
from inna_core.algorithm import Array, Namespace, Scalar
from inna_core.dynamics import energy_of, largest_stable_sharpness

Arrays = list[Array]
NAN = math.nan
EVERY, SHARPNESS_EVERY, ITERATIONS = 100, 1000, 10
"""Defaults of every host: steps between two samples, and between two samples with the sharpness; Hessian products."""


class Metrics(NamedTuple):
    """One sample; numbers, or 0-d arrays under ``jax.jit``. What was not measured is NaN.

    Attributes:
        step: number of steps made before the sample.
        lr: learning rate, in torch of the step before the sample, in optax and Keras of the step after it.
        velocity_norm: Euclidean norm of the velocity of all parameters.
        loss: J(theta), on the batch that the monitor was given.
        energy: E, in the units of the loss.
        sharpness: h, an estimate that never exceeds the true one.
        stable_sharpness: the sharpness up to which a step with this learning rate is stable.
    """

    step: Scalar
    lr: Scalar
    velocity_norm: Scalar
    loss: Scalar = NAN
    energy: Scalar = NAN
    sharpness: Scalar = NAN
    stable_sharpness: Scalar = NAN

    @property
    def stability_ratio(self) -> Scalar:
        """Sharpness over the stable sharpness: above 1 the step is unstable on the quadratic model of the loss."""
        h, limit = self.sharpness, self.stable_sharpness
        return h * math.inf if type(limit) is float and limit == 0 else h / limit


def check_periods(every: int, sharpness_every: int, iterations: int) -> None:
    """Refuse arguments that are not positive integers, and a `sharpness_every` that is not a multiple of `every`.

    Raises:
        TypeError: if one is not an int.
        ValueError: if one is out of range.
    """
    for name, value in (("every", every), ("sharpness_every", sharpness_every), ("iterations", iterations)):
        checked_count(name, value, 1)
    if sharpness_every % every:
        raise ValueError(f"Invalid sharpness_every: {sharpness_every} (expected a multiple of every, {every})")


def velocity_squares(algorithm: Any, states: Iterable[Any], xp: Namespace) -> tuple[Array, Array]:
    """Return |v|^2 and <v, D v> of all parameters, 0-d arrays (0 where there are none).

    Args:
        algorithm: `inna_core.INNA` or `inna_core.INNAprop`.
        states: the algorithm's states, one per parameter.
        xp: their namespace.
    """
    plain, scaled = 0.0, 0.0
    for state in states:
        squares = squared_modulus(state.velocity, xp)
        plain = plain + xp.sum(squares)
        D = algorithm.denominators(state, xp) if hasattr(algorithm, "denominators") else None
        scaled = scaled + xp.sum(squares if D is None else D * squares)
    return plain, scaled


def measured(
    algorithm: Any, step: Scalar, lr: Array, squares: tuple[Array, Array], loss: Array, sharpness: Array, xp: Namespace
) -> Metrics:
    """Return a sample, given what a host measured.

    Args:
        algorithm: `inna_core.INNA` or `inna_core.INNAprop`.
        step: number of steps made.
        lr: learning rate.
        squares: from `velocity_squares`.
        loss: J(theta), or NaN.
        sharpness: from `largest_eigenvalue`, or NaN.
        xp: namespace of these 0-d arrays, which are real and of one dtype.
    """
    by = algorithm.coefficients(lr, xp)
    return Metrics(
        step=step,
        lr=lr,
        velocity_norm=xp.sqrt(squares[0]),
        loss=loss,
        energy=energy_of(loss, squares[1], by.alpha_beta),
        sharpness=sharpness,
        stable_sharpness=largest_stable_sharpness(by, xp),
    )


def python_loop(body: Callable[[Any], Any], carry: Any, count: int, xp: Namespace) -> tuple[Array, Array]:
    """Apply a body that returns a carry and two 0-d arrays, and return these stacked, as ``jax.lax.scan`` does."""
    pairs = []
    for _ in range(count):
        carry, pair = body(carry)
        pairs.append(pair)
    return tuple(xp.stack(column) for column in zip(*pairs, strict=True))  # type: ignore[return-value]


def largest_eigenvalue(
    product: Callable[[Arrays], Arrays],
    start: Sequence[Array],
    iterations: int,
    xp: Namespace,
    loop: Callable[..., tuple[Array, Array]] = python_loop,
) -> Array:
    """Return an estimate of the largest eigenvalue of a symmetric matrix, from below.

    Args:
        product: the matrix times a vector; vectors are lists of real arrays, in float32 or float64.
        start: a random vector; at least one array.
        iterations: number of products. With as many as the matrix has eigenvalues the estimate is exact.
        xp: namespace of the arrays.
        loop: repeats a body, see `python_loop`.

    Returns:
        A 0-d array; NaN if a product is not finite.

    Reference: Golub and Van Loan, Matrix Computations, section 10.1.

    Example:
        >>> import numpy as np
        >>> A = np.diag([-5.0, 1.0, 3.0])
        >>> round(float(largest_eigenvalue(lambda x: [A @ x[0]], [np.ones(3)], 3, np)), 12)
        3.0
    """

    def dot(x: Arrays, y: Arrays) -> Array:
        total = xp.sum(x[0] * y[0])
        for one, other in zip(x[1:], y[1:], strict=True):
            total = total + xp.sum(one * other)
        return total

    def body(carry: tuple[Arrays, Arrays, Array]) -> Any:
        q, before, b = carry
        w = product(q)
        a = dot(w, q)
        w = [x - a * y - b * z for x, y, z in zip(w, q, before, strict=True)]
        b = xp.sqrt(dot(w, w))
        # b = 0: no new direction is left. Repeating q adds no eigenvalue that was not there.
        ended = b == 0
        after = [xp.where(ended, y, x / xp.where(ended, xp.ones_like(b), b)) for x, y in zip(w, q, strict=True)]
        return (after, q, b), (a, b)

    norm = xp.sqrt(dot(list(start), list(start)))
    q = [x / norm for x in start]
    a, b = loop(body, (q, [xp.zeros_like(x) for x in q], 0 * norm), iterations, xp)
    rows, columns = xp.arange(iterations)[:, None], xp.arange(iterations)[None, :]
    zero = xp.zeros_like(a[None, :] + a[:, None])
    T = xp.where(rows == columns, a[None, :], zero)
    T = T + xp.where(rows == columns + 1, b[None, :], zero) + xp.where(rows + 1 == columns, b[:, None], zero)
    finite = xp.all(xp.isfinite(T))
    values = xp.linalg.eigh(xp.where(finite, T, zero))[0]  # some eigensolvers raise where others return NaN
    return xp.where(finite, values[-1], zero[0, 0] + NAN)


def plot(history: Iterable[Metrics]) -> Any:
    """Draw samples: loss and energy above, the sharpness and its stable limit below.

    Where the sharpness meets its limit, training is at the edge of stability.

    Args:
        history: samples, in order.

    Returns:
        A ``matplotlib.figure.Figure``, not shown; save it with ``savefig``.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if there is no sample.

    Example:
        >>> from importlib.util import find_spec
        >>> samples = [Metrics(100 * k, 0.1, 0.5, 1 / k, 2.1 / k, 10.0 + k, 20.0) for k in range(1, 10)]
        >>> if find_spec("matplotlib"):
        ...     figure = plot(samples)  # figure.savefig("monitor.png")
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("inna_core.monitor.plot needs matplotlib: python -m pip install matplotlib") from error
    samples = [Metrics(*map(float, sample)) for sample in history]
    if not samples:
        raise ValueError("Invalid history: no samples (expected at least one)")
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    # colours of Okabe and Ito, and different line styles, for colour-blind readers
    curves = [
        (above, "loss", "#0072B2", "-", "loss"),
        (above, "energy", "#D55E00", "--", "energy"),
        (below, "sharpness", "#0072B2", "-", "sharpness"),
        (below, "stable_sharpness", "#000000", "--", "stability limit at the current lr"),
    ]
    for axes, name, color, stroke, label in curves:
        points = [(s.step, y) for s in samples if math.isfinite(y := getattr(s, name))]
        marker = "o" if name == "sharpness" else None
        axes.plot(*zip(*points, strict=True) if points else ((), ()), stroke, color=color, marker=marker, ms=3)
        axes.lines[-1].set_label(label)
    for axes in (above, below):
        if all(y > 0 for line in axes.lines for y in line.get_ydata()):
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend()
    above.set_ylabel("loss, energy")
    below.set(xlabel="step", ylabel="sharpness")
    return figure
