"""Complex parameters against the recurrence on their real and imaginary parts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conformance_tests import oracle
from conformance_tests.matrix.cases import EPS, SHAPES, Case, Setup, random_arrays
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.rows import row, tier_of_property
from conformance_tests.matrix.table import CASES, HOSTS

N_STEPS = 4
REAL = {"complex128": "float64", "complex64": "float32"}
NAMES = ("inna-decaying", "inna-decay", "innaprop-decaying", "innaprop-decay", "innaprop-published-decay")


def complex_arrays(seed: int, dtype: str) -> list[np.ndarray]:
    real, imaginary = (random_arrays(seed + i, dtype=REAL[dtype]) for i in (0, 5000))
    return [x + 1j * y for x, y in zip(real, imaginary, strict=True)]


def on_parts(setup: Setup, theta: np.ndarray, grads: list[np.ndarray], moment: str) -> np.ndarray:
    """The papers' recurrence on (real, imaginary) in a last axis of 2."""
    alpha, beta = setup.hyper["alpha"], setup.hyper["beta"]
    theta, velocity, s = parts(theta), 0.0, 0.0
    for k, g in enumerate(map(parts, grads)):
        gamma = setup.lr(k)
        if setup.algorithm == "INNAprop":
            sigma, eps = setup.hyper["sigma"], setup.hyper["eps"]
            square = {"parts": g**2, "modulus": np.sum(g**2, axis=-1, keepdims=True)}[moment]
            s = sigma * s + (1 - sigma) * square
            g = g / (np.sqrt(s / (1 - sigma ** (k + 1))) + eps)
        psi, shrunk = oracle.psi_of(theta, velocity, alpha, beta), (1 - gamma * setup.weight_decay) * theta
        start = shrunk if setup.published_decay else theta
        moved, psi = oracle.inna(g, start, psi, gamma, alpha, beta)
        velocity, theta = oracle.velocity_of(moved, psi, alpha, beta), moved + shrunk - start
    return theta[..., 0] + 1j * theta[..., 1]


def parts(z: Any) -> np.ndarray:
    return np.stack([z.real, z.imag], axis=-1)


ROWS = [
    row(host, case, id=case.name, tier="nightly" if host.compiled else tier_of_property(host))
    for host in HOSTS
    if host.complex_moment is not None
    for case in CASES
    if case.name in NAMES
]


@pytest.mark.parametrize(("host", "case"), ROWS)
def test_complex_parameters_follow_the_recurrence_of_their_parts(host: Host, case: Case, open_run: Any) -> None:
    dtype = "complex128" if "float64" in host.dtypes else "complex64"
    setup = replace(case.setup(dtype), lrs=case.lrs[:N_STEPS])
    start, grads = complex_arrays(0, dtype), [complex_arrays(k + 1, dtype) for k in range(N_STEPS)]
    run = open_run(host, setup, start)
    for g in grads:
        run.step(g)
    got = run.read().params
    for i, theta in enumerate(start):
        assert host.complex_moment is not None
        want = on_parts(setup, theta, [g[i] for g in grads], host.complex_moment)
        assert got[i].shape == SHAPES[i]
        assert np.all(np.abs(got[i] - want) <= 100 * EPS[REAL[dtype]] * (1 + np.abs(want)))
        assert not np.any(got[i] == theta)
    assert {fact.dtype for fact in run.facts()["params"]} == {dtype}
