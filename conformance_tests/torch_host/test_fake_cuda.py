"""Device logic without a GPU: torch's fake tensors stand for CUDA tensors, and mixing devices raises as there."""

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
fake_tensor: Any = pytest.importorskip("torch._subclasses.fake_tensor", reason="torch has no fake tensors")

import inna_core  # noqa: E402
import inna_torch  # noqa: E402
from conformance_tests.matrix.table import BY_NAME  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("algorithm", BY_NAME)
def test_core_stays_on_the_device(algorithm: str, dtype: Any) -> None:
    with fake_tensor.FakeTensorMode(), torch.no_grad():
        theta = torch.ones(3, 4, device="cuda", dtype=dtype)
        chosen = getattr(inna_core, algorithm)()
        delta, state = chosen.update(theta, chosen.init(theta), theta, 0.1)
        assert {x.device.type for x in (delta, *state)} == {"cuda"}
        assert delta.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("algorithm", BY_NAME)
def test_optimizer_keeps_each_state_on_its_parameters_device(algorithm: str, dtype: Any) -> None:
    with fake_tensor.FakeTensorMode(), torch.no_grad():
        params = [torch.nn.Parameter(torch.ones(3, device=device, dtype=dtype)) for device in ("cuda", "cpu")]
        optimizer = getattr(inna_torch, algorithm)(params, weight_decay=0.1)
        for _ in range(2):
            for p in params:
                p.grad = torch.ones_like(p)
            optimizer.step()
        for p in params:
            own = {name: value for name, value in optimizer.state[p].items() if name != "step"}
            assert own
            assert {value.device for value in own.values()} == {p.device}


def test_mixing_devices_raises() -> None:
    with fake_tensor.FakeTensorMode(), torch.no_grad():
        theta, grad = torch.ones(3, device="cuda"), torch.ones(3)
        inna = inna_core.INNA()
        with pytest.raises(RuntimeError, match="cuda"):
            inna.update(grad, inna.init(theta), theta, 0.1)
