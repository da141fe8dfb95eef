"""The decay of the published code, on every path of both classes, against the core."""

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_core  # noqa: E402
import inna_torch  # noqa: E402
from conformance_tests.torch_host.rows import ROWS, counted_calls, difference, parameters, set_gradients  # noqa: E402
from inna_core.weight_decay import update_with_decay  # noqa: E402


@pytest.mark.parametrize("lrs", [(0.02,) * 6, (0.02, 0.05, 0.1, 0.15, 0.04, 0.0)], ids=["constant lr", "schedule"])
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_published_decay_follows_the_core(optimizer: Any, flags: dict[str, Any], lrs: tuple[float, ...]) -> None:
    params = parameters(torch.float64)
    algorithm = {inna_torch.INNA: inna_core.INNA, inna_torch.INNAprop: inna_core.INNAprop}[optimizer](0.4, 0.2)
    instance = optimizer(params, alpha=0.4, beta=0.2, weight_decay=0.3, published_decay=True, **flags)
    exact = [p.detach().clone() for p in params]
    states = [algorithm.init(p) for p in exact]
    for k, lr in enumerate(lrs):
        set_gradients(params, k)
        instance.param_groups[0]["lr"] = lr
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fused=True, but")
            instance.step()
        for i, p in enumerate(params):
            delta, states[i] = update_with_decay(algorithm, p.grad, states[i], exact[i], lr, 0.3, published=True)
            exact[i] = exact[i] + delta
    assert difference(params, exact) < 1e-13
    assert difference([instance.state[p]["velocity"] for p in params], [state.velocity for state in states]) < 1e-13


def test_published_decay_of_inna_takes_the_sgd_kernel() -> None:
    params = parameters(torch.float32)
    optimizer = inna_torch.INNA(params, lr=0.05, weight_decay=0.1, published_decay=True)
    for k in range(2):
        set_gradients(params, k)
        with counted_calls() as kernel:
            optimizer.step()
        assert kernel.call_count == 2  # of decay and of the step
