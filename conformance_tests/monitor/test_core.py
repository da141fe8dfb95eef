"""The numbers of `inna_core.monitor` against closed forms and full eigendecompositions."""

import sys

import numpy as np
import pytest

from conformance_tests.monitor.reference import SETTINGS, Setting, is_stable
from inna_core import INNA, INNAprop, INNApropState
from inna_core.dynamics import largest_stable_lr, largest_stable_sharpness
from inna_core.monitor import Metrics, check_periods, largest_eigenvalue, measured, plot, velocity_squares

ALGORITHMS = {"INNA": INNA, "INNAprop": INNAprop}


def symmetric(eigenvalues: list[float], seed: int = 0) -> np.ndarray:
    n = len(eigenvalues)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    return basis @ np.diag(eigenvalues) @ basis.T


def estimate(A: np.ndarray, iterations: int, seed: int = 1) -> float:
    """Return the estimate for a vector in two pieces."""

    def product(x: list[np.ndarray]) -> list[np.ndarray]:
        image = A @ np.concatenate(x)
        return [image[:1], image[1:]]

    start = np.random.default_rng(seed).normal(size=len(A))
    return float(largest_eigenvalue(product, [start[:1], start[1:]], iterations, np))


SPECTRA = {
    "positive": [1.0, 2.0, 3.0, 10.0],
    "largest modulus negative": [-50.0, -1.0, 0.0, 4.0],
    "negative": [-9.0, -3.0, -2.0, -1.0],
    "multiple": [2.0, 2.0, 2.0, 2.0],
    "zero": [0.0, 0.0, 0.0, 0.0],
    "graded": [1e-8, 1e-4, 1.0, 1e4],
}


@pytest.mark.fast
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("iterations", [4, 12])
def test_enough_products_give_the_largest_eigenvalue(spectrum: str, iterations: int) -> None:
    eigenvalues = SPECTRA[spectrum]
    error = estimate(symmetric(eigenvalues), iterations) - max(eigenvalues)
    assert abs(error) <= 1e-12 * np.abs(eigenvalues).max()


@pytest.mark.fast
@pytest.mark.parametrize("seed", range(5))
def test_ten_products_bound_it_from_below_and_beat_the_power_method(seed: int) -> None:
    """With a spectrum like a network's: a few outliers, a bulk near zero, and some negative ones."""
    generator = np.random.default_rng(seed)
    eigenvalues = [*generator.uniform(-0.3, 0.5, size=95), 2.0, 3.0, 5.0, 8.0, 10.0]
    A = symmetric(eigenvalues, seed)
    found = estimate(A, 10)
    x = np.random.default_rng(1).normal(size=100)
    for _ in range(10):
        x = A @ (x / np.linalg.norm(x))
    assert x @ A @ x / (x @ x) <= found <= 10 * (1 + 1e-12)
    assert found > 0.99 * 10


@pytest.mark.fast
def test_products_that_are_not_finite_make_it_nan() -> None:
    assert np.isnan(largest_eigenvalue(lambda x: [x[0] * np.nan], [np.ones(3)], 5, np))
    with np.errstate(invalid="ignore"):
        assert np.isnan(largest_eigenvalue(lambda x: [x[0] * np.inf], [np.ones(3)], 5, np))


RATES = [(setting, lr) for setting in SETTINGS for lr in (1e-4, 0.03, 0.3, 3.0, 30.0)]


@pytest.mark.fast
@pytest.mark.parametrize(("setting", "lr"), RATES, ids=lambda x: x.name if isinstance(x, Setting) else str(x))
def test_a_step_is_stable_up_to_the_stable_sharpness(setting: Setting, lr: float) -> None:
    """By the eigenvalues of its matrix."""
    by = ALGORITHMS[setting.algorithm](**setting.hyper).coefficients(np.asarray(lr), np)
    limit = float(largest_stable_sharpness(by, np))
    dampings = setting.dampings(lr)
    assert limit == 0 or all(is_stable(share * limit, *dampings) for share in (1e-3, 0.5, 0.999))
    assert not is_stable(1.001 * limit + 1e-9, *dampings)


@pytest.mark.fast
@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.algorithm == "INNA"], ids=lambda s: s.name)
def test_the_stable_sharpness_crosses_the_sharpness_at_the_largest_stable_lr(setting: Setting) -> None:
    lr = largest_stable_lr(7.0, **setting.hyper)
    below, above = (
        float(largest_stable_sharpness(INNA(**setting.hyper).coefficients(np.asarray(lr * factor), np), np))
        for factor in (1 - 1e-9, 1 + 1e-9)
    )
    assert above < 7 < below


@pytest.mark.fast
def test_any_sharpness_is_stable_without_a_step() -> None:
    for algorithm in (INNA(), INNA(momentum=0.9), INNAprop(momentum=0.9)):
        assert float(largest_stable_sharpness(algorithm.coefficients(np.asarray(0.0), np), np)) == np.inf


@pytest.mark.fast
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_energy_weighs_the_velocity_with_what_gradients_are_divided_by(momentum: float | None) -> None:
    """E = 2 (1 + alpha beta) J + <v, D v>; here 2 (1 + alpha beta) J + 2 * 3^2 + 5 * 1^2, with D = (2, 5)."""
    algorithm = INNAprop(momentum=momentum, eps=1.0)
    alpha_beta = 0.1 * 0.9 if momentum is None else (1 - momentum) * (1 + momentum)
    state = INNApropState(np.asarray([3.0, -1.0]), np.asarray([1.0, 16.0]), np.asarray(1e9))
    plain, scaled = velocity_squares(algorithm, [state], np)
    sample = measured(algorithm, 7, np.asarray(0.1), (plain, scaled), np.asarray(1.5), np.asarray(2.0), np)
    assert sample.velocity_norm == pytest.approx(np.sqrt(10), rel=1e-12)
    assert sample.energy == pytest.approx(2 * (1 + alpha_beta) * 1.5 + 23, rel=1e-12)


@pytest.mark.fast
def test_the_ratio_is_infinite_where_no_sharpness_is_stable() -> None:
    assert Metrics(1, 0.1, 0.0, sharpness=2.0, stable_sharpness=0.0).stability_ratio == np.inf
    assert Metrics(1, 0.1, 0.0, sharpness=2.0, stable_sharpness=8.0).stability_ratio == 0.25


REFUSED = {
    "every": (0, 1, 1, ValueError, r"Invalid every: 0 \(expected an int >= 1\)"),
    "sharpness_every": (1, -1, 1, ValueError, r"Invalid sharpness_every: -1"),
    "iterations": (1, 1, 0, ValueError, r"Invalid iterations: 0"),
    "type": (1.5, 3, 1, TypeError, r"Invalid every: 1.5 \(expected an int >= 1\)"),
    "multiple": (100, 150, 1, ValueError, r"Invalid sharpness_every: 150 \(expected a multiple of every, 100\)"),
}


@pytest.mark.fast
@pytest.mark.parametrize("name", REFUSED)
def test_periods_out_of_range_are_named(name: str) -> None:
    *periods, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        check_periods(*periods)


def test_the_plot_shows_what_is_finite() -> None:
    pytest.importorskip("matplotlib")
    samples = [Metrics(1, 0.1, 1.0, 2.0, 3.0, 4.0, 5.0), Metrics(2, 0.1, 1.0, 1.0), Metrics(3, 0.1, 1.0, np.inf, 1.0)]
    above, below = plot(samples).axes
    points = {
        line.get_label(): [(float(x), float(y)) for x, y in line.get_xydata()] for line in [*above.lines, *below.lines]
    }
    assert points == {
        "loss": [(1, 2), (2, 1)],
        "energy": [(1, 3), (3, 1)],
        "sharpness": [(1, 4)],
        "stability limit at the current lr": [(1, 5)],
    }
    assert above.get_yscale() == "log"
    with pytest.raises(ValueError, match="Invalid history: no samples"):
        plot([])


def test_the_plot_names_the_package_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="needs matplotlib: python -m pip install matplotlib"):
        plot([Metrics(1, 0.1, 1.0)])
