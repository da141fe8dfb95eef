"""Evaluations that `inna_scipy.inna` and SciPy's own methods need on smooth test functions.

    python -m benchmarks.scipy_methods [--write docs/scipy.md]

Each method runs until no element of the gradient exceeds 1e-6; its other criteria are switched off, and its remaining
options are the defaults. The functions themselves count their calls. A result counts if its gradient, evaluated
once more, is that small, whatever the method says. The heavy ball has momentum 0.9, and of 15 learning rates, each half
of the one before, the one that takes fewest steps on the problem, which no user knows beforehand.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize, rosen, rosen_der

from benchmarks.training.tables import table
from inna_scipy import inna

GTOL, MAXITER = 1e-6, 20_000
BEGIN, END = "<!-- generated scipy -->", "<!-- end -->"

Array = np.ndarray


@dataclass(frozen=True)
class Problem:
    """A smooth function, its gradient, and where to start."""

    name: str
    x0: tuple[float, ...]
    fun: Callable[[Array], Any]
    jac: Callable[[Array], Array]


def beale_terms(x: Array) -> tuple[Array, Array]:
    powers = x[1] ** np.asarray([1, 2, 3])
    jacobian = np.stack([powers - 1, x[0] * np.asarray([1, 2, 3]) * x[1] ** np.asarray([0, 1, 2])], axis=1)
    return np.asarray([1.5, 2.25, 2.625]) - x[0] * (1 - powers), jacobian


def beale(x: Array) -> float:
    terms, _ = beale_terms(x)
    return float(terms @ terms)


def beale_der(x: Array) -> Array:
    terms, jacobian = beale_terms(x)
    return 2 * jacobian.T @ terms


BOOTH, BOOTH_SIDE = np.asarray([[1.0, 2.0], [2.0, 1.0]]), np.asarray([7.0, 5.0])
CURVATURES = np.logspace(0, 4, 100)


def powell(x: Array) -> float:
    """Powell's singular function: its Hessian at the minimum has rank 2."""
    return (x[0] + 10 * x[1]) ** 2 + 5 * (x[2] - x[3]) ** 2 + (x[1] - 2 * x[2]) ** 4 + 10 * (x[0] - x[3]) ** 4


def powell_der(x: Array) -> Array:
    a, b, c, d = x[0] + 10 * x[1], x[2] - x[3], (x[1] - 2 * x[2]) ** 3, (x[0] - x[3]) ** 3
    return np.asarray([2 * a + 40 * d, 20 * a + 4 * c, 10 * b - 8 * c, -10 * b - 40 * d])


@cache
def breast_cancer() -> tuple[Array, Array]:
    from sklearn.datasets import load_breast_cancer

    data: Any = load_breast_cancer()
    return (data.data - data.data.mean(0)) / data.data.std(0), 2.0 * data.target - 1


def logistic(w: Array) -> float:
    x, y = breast_cancer()
    return np.logaddexp(0, -y * (x @ w)).mean() + 5e-4 * w @ w


def logistic_der(w: Array) -> Array:
    x, y = breast_cancer()
    return -x.T @ (y / (1 + np.exp(y * (x @ w)))) / len(y) + 1e-3 * w


PROBLEMS = (
    Problem("Rosenbrock, 2-D", (-1.2, 1.0), rosen, rosen_der),
    Problem("Rosenbrock, 5-D", (1.3, 0.7, 0.8, 1.9, 1.2), rosen, rosen_der),
    Problem("Rosenbrock, 10-D", (-1.2, 1.0) * 5, rosen, rosen_der),
    Problem("Rosenbrock, 100-D", (-1.2, 1.0) * 50, rosen, rosen_der),
    Problem("Beale", (1.0, 1.0), beale, beale_der),
    Problem(
        "Booth",
        (0.0, 0.0),
        lambda x: np.sum((BOOTH @ x - BOOTH_SIDE) ** 2),
        lambda x: 2 * BOOTH.T @ (BOOTH @ x - BOOTH_SIDE),
    ),
    Problem(
        "quadratic, 100-D, condition 1e4",
        (1.0,) * 100,
        lambda x: 0.5 * x @ (CURVATURES * x),
        lambda x: CURVATURES * x,
    ),
    Problem("Powell, singular Hessian", (3.0, -1.0, 0.0, 1.0), powell, powell_der),
    Problem("logistic regression, 30-D", (0.0,) * 30, logistic, logistic_der),
)


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable[[Array], Any]) -> None:
        self._function, self.calls = function, 0

    def __call__(self, x: Array) -> Any:
        self.calls += 1
        return self._function(x)


@dataclass(frozen=True)
class Run:
    """What a method needed on a problem.

    Attributes:
        nfev, njev: evaluations of the function and of the gradient.
        reached: whether the gradient at the result is as small as asked for.
        result: what SciPy returns.
    """

    nfev: int
    njev: int
    reached: bool
    result: Any


def solve(problem: Problem, method: Any, **options: Any) -> Run:
    """Minimize the function of a problem."""
    fun, jac = Counted(problem.fun), Counted(problem.jac)
    with np.errstate(all="ignore"):  # steps that will be rejected
        found = minimize(fun, problem.x0, jac=jac, method=method, options={"gtol": GTOL, **options})
        reached = bool(np.abs(problem.jac(found.x)).max() <= GTOL)
    return Run(fun.calls, jac.calls, reached, found)


def heavy_ball(problem: Problem) -> Run:
    """Return the run with the best of the learning rates."""
    options = {"momentum": 0.9, "lead": 1.0, "maxiter": MAXITER // 2}
    runs = [solve(problem, inna, lr=0.25 * 2.0**-k, **options) for k in range(-2, 13)]
    return min(runs, key=lambda run: (not run.reached, run.njev))


METHODS: dict[str, Callable[[Problem], Run]] = {
    "BFGS": lambda problem: solve(problem, "BFGS", maxiter=MAXITER),
    "L-BFGS-B": lambda problem: solve(problem, "L-BFGS-B", ftol=0.0, maxiter=MAXITER, maxfun=MAXITER),
    "TNC": lambda problem: solve(problem, "TNC", ftol=0.0, xtol=0.0, maxfun=MAXITER),
    "CG": lambda problem: solve(problem, "CG", maxiter=MAXITER),
    "inna": lambda problem: solve(problem, inna, maxiter=MAXITER),
    "heavy ball, tuned": heavy_ball,
}


def rows() -> Iterator[list[str]]:
    for problem in PROBLEMS:
        runs = [run(problem) for run in METHODS.values()]
        yield [problem.name, *(f"{run.nfev} / {run.njev}" if run.reached else "not reached" for run in runs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    page = parser.parse_args().write
    made = table(["function", *METHODS], list(rows()))
    if page is None:
        sys.stdout.write(made)
        return
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{made}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
