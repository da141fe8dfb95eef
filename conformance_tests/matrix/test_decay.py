"""Decoupled weight decay is exactly decay, on every host and in every dtype."""

import importlib
from typing import Any

import numpy as np
import pytest

from conformance_tests.matrix.cases import EPS, Case, Setup, random_arrays
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.rows import row, tier_of_dtype
from conformance_tests.matrix.table import ALGORITHMS, BY_NAME, DEFAULTS, HOSTS

LR, DECAY = 0.01, 0.1
N_STEPS = 30  # enough for compensations to reach the parameter several times, in bfloat16 too
SHAPES = ((50,),)

ROWS = [
    row(host, case, dtype, id=f"{case.algorithm}-{dtype}", tier=tier_of_dtype(host, case, dtype))
    for host in HOSTS
    for case in DEFAULTS
    for dtype in host.dtypes
    # narrow parameters without compensation round every step; what they lose is no property of decay
    if dtype in ("float64", "float32") or dtype in host.state_dtypes
]


def ulp(x: np.ndarray, dtype: str) -> np.ndarray:
    """Distance between neighbouring numbers of a dtype near x."""
    return EPS[dtype] * 2.0 ** np.floor(np.log2(np.abs(x)))


@pytest.mark.parametrize(("host", "case", "dtype"), ROWS)
def test_zero_gradients_leave_pure_decay(host: Host, case: Case, dtype: str, open_run: Any) -> None:
    """Each step within 1 ulp of multiplying by 1 - lr * weight_decay; the state stays empty."""
    run = open_run(host, Setup(case.algorithm, case.hyper, (LR,), dtype, DECAY), random_arrays(0, SHAPES, dtype))
    old = new = run.read()
    for _ in range(N_STEPS):
        run.step([np.zeros(SHAPES[0])])
        new = run.read()
        compensations = [state.state.get("compensation", [0.0])[0] for state in (old, new)]
        pure = (old.params[0] + compensations[0]) * (1 - LR * DECAY)
        assert np.all(np.abs(new.params[0] - pure) <= ulp(pure, dtype))
        # a compensation keeps even the part below 1 ulp, to its own ulp or float32's
        precision = max(EPS[dtype], 2.0**-16) if "compensation" in new.state else 1.0
        assert np.all(np.abs(new.params[0] + compensations[1] - pure) <= ulp(pure, dtype) * precision)
        assert not any(np.any(new.state[name][0]) for name in BY_NAME[case.algorithm].state)
        old = new
    total = random_arrays(0, SHAPES, dtype)[0] * (1 - LR * DECAY) ** N_STEPS
    assert np.all(np.abs(new.params[0] - total) <= N_STEPS * ulp(total, dtype))


MASKS = {
    "tree": {"w": {"kernel": True, "bias": False}, "b": False},
    "prefix": {"w": True, "b": False},
    "callable": lambda params: {"w": {"kernel": True, "bias": True}, "b": False},
    "arrays": {"w": {"kernel": np.asarray(True), "bias": np.asarray(False)}, "b": np.asarray(False)},
}
DECAYED = {"tree": {"kernel"}, "prefix": {"kernel", "bias"}, "callable": {"kernel", "bias"}, "arrays": {"kernel"}}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", [algorithm.optax for algorithm in ALGORITHMS])
def test_optax_masks_spare_leaves(name: str, mask: str) -> None:
    optax: Any = pytest.importorskip("optax", reason="optax is not installed")
    inna_optax = importlib.import_module("inna_optax")
    params = {"w": {"kernel": np.ones(3), "bias": np.ones(2)}, "b": np.ones(1)}
    zeros = {"w": {"kernel": np.zeros(3), "bias": np.zeros(2)}, "b": np.zeros(1)}
    optimizer = getattr(inna_optax, name)(LR, weight_decay=DECAY, mask=MASKS[mask])
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    new = optax.apply_updates(params, updates)
    for leaf, value in {**new["w"], "b": new["b"]}.items():
        want = 1 - LR * DECAY if leaf in DECAYED[mask] else 1.0
        assert np.allclose(value, want, rtol=1e-7, atol=0), leaf


@pytest.mark.parametrize("name", BY_NAME)
def test_torch_groups_spare_parameters(name: str) -> None:
    torch: Any = pytest.importorskip("torch", reason="torch is not installed")
    inna_torch = importlib.import_module("inna_torch")
    kernel, bias = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    groups = [{"params": [kernel]}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = getattr(inna_torch, name)(groups, lr=LR, weight_decay=DECAY)
    kernel.grad, bias.grad = torch.zeros_like(kernel), torch.zeros_like(bias)
    optimizer.step()
    assert torch.equal(bias, torch.ones_like(bias))
    assert np.allclose(kernel.detach().numpy(), 1 - LR * DECAY, rtol=1e-15, atol=0)
