"""The problem: the user's functions, with checks and counts, and the box given by the bounds."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import Bounds, approx_fprime

Array = np.ndarray


class Objective:
    """The objective and its gradient, with the number of calls of each.

    Attributes:
        nfev: evaluations of the objective, those of finite differences included.
        njev: evaluations of the gradient.
    """

    def __init__(self, fun: Callable[..., Any], jac: Callable[..., Any] | None, args: Any, eps: Any, upper: Any):
        self._fun, self._jac, self._eps, self._upper = fun, jac, eps, upper
        self._args = args if isinstance(args, tuple) else (args,)
        self.nfev = self.njev = 0

    def value(self, x: Array) -> float:
        """Return the objective at x."""
        self.nfev += 1
        value = np.asarray(self._fun(np.copy(x), *self._args))
        if value.size != 1:
            raise ValueError(f"Invalid fun: returned an array of shape {value.shape} (expected a scalar)")
        if np.iscomplexobj(value):
            raise TypeError(f"Invalid fun: returned {value.item()!r} (expected a real number)")
        return float(value.item())

    def gradient(self, x: Array) -> Array:
        """Return the gradient at x, by forward differences (backward ones at upper bounds) where no `jac` is given."""
        self.njev += 1
        if self._jac is None:
            steps = np.where(x + self._eps <= self._upper, self._eps, -self._eps)
            return np.asarray(approx_fprime(x, self.value, steps), dtype=float)
        gradient = np.asarray(self._jac(np.copy(x), *self._args))
        if np.iscomplexobj(gradient):
            raise TypeError(f"Invalid jac: returned dtype {gradient.dtype} (expected a real dtype)")
        if gradient.size != x.size:
            raise ValueError(f"Invalid jac: returned shape {gradient.shape} (expected {x.shape})")
        # a copy: the function may overwrite its array
        return np.array(gradient, dtype=float).reshape(x.shape)


class Box:
    """The set lower <= x <= upper, or the whole space.

    Args:
        bounds: None, `scipy.optimize.Bounds`, or a pair (lower, upper) for each variable, with None for no bound.
        n: number of variables.

    Raises:
        ValueError: if the bounds have another length, or a lower one is above the upper one.
    """

    def __init__(self, bounds: Any, n: int):
        self.lower, self.upper = np.full(n, -np.inf), np.full(n, np.inf)
        if isinstance(bounds, Bounds):
            self.lower, self.upper = (fitted(name, getattr(bounds, name), n) for name in ("lb", "ub"))
        elif bounds is not None:
            pairs = list(bounds) if np.iterable(bounds) else [bounds]
            if len(pairs) != n or any(np.shape(pair) != (2,) for pair in pairs):
                raise ValueError(f"Invalid bounds: {bounds!r} (expected {n} pairs of a lower and an upper bound)")
            self.lower = np.array([-np.inf if low is None else low for low, _ in pairs], dtype=float)
            self.upper = np.array([np.inf if high is None else high for _, high in pairs], dtype=float)
        if not np.all(self.lower <= self.upper):  # NaN among them too
            raise ValueError(f"Invalid bounds: {bounds!r} (expected lower bounds <= upper bounds)")
        self.is_bounded = bool(np.isfinite(self.lower).any() or np.isfinite(self.upper).any())

    def projected(self, x: Array) -> Array:
        """Return the point of the box nearest to x."""
        return np.clip(x, self.lower, self.upper) if self.is_bounded else x

    def projected_gradient(self, x: Array, gradient: Array) -> Array:
        """Return x - P(x - gradient), zero exactly where no feasible direction descends; without bounds the gradient.

        Reference: C. Zhu, R. Byrd, P. Lu, J. Nocedal. Algorithm 778: L-BFGS-B. ACM Transactions on Mathematical
        Software 23 (4), 1997, equation 6.1.
        """
        return x - self.projected(x - gradient) if self.is_bounded else gradient


def fitted(name: str, value: Any, n: int) -> Array:
    bound = np.asarray(value, dtype=float)
    if bound.shape not in ((), (1,), (n,)):
        raise ValueError(f"Invalid bounds.{name}: shape {bound.shape} (expected ({n},))")
    return np.array(np.broadcast_to(bound, (n,)))
