"""What is refused, by which words, and that nothing has changed then."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402
from conformance_tests.torch_host.rows import OPTIMIZERS, ROWS, parameters, set_gradients  # noqa: E402

EXCLUSIONS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "fused and foreach": (inna_torch.INNA, {"fused": True, "foreach": True}, "Invalid fused: True .*foreach"),
    "fused and differentiable": (inna_torch.INNA, {"fused": True, "differentiable": True}, "Invalid differentiable"),
    "foreach and differentiable": (inna_torch.INNA, {"foreach": True, "differentiable": True}, "Invalid different"),
    "compiled and fused": (inna_torch.INNA, {"compiled": True, "fused": True}, "Invalid compiled: True .*False where"),
    "compiled and foreach": (inna_torch.INNA, {"compiled": True, "foreach": True}, "Invalid compiled: True .*foreach"),
    "compiled, capturable": (inna_torch.INNA, {"compiled": True, "capturable": True}, "Invalid compiled: True .*captu"),
    "compiled, differentiable": (inna_torch.INNA, {"compiled": True, "differentiable": True}, "Invalid compiled: True"),
    "capturable, differentiable": (inna_torch.INNA, {"capturable": True, "differentiable": True}, "Invalid different"),
}


@pytest.mark.parametrize("row", EXCLUSIONS)
def test_exclusive_flags_are_refused(row: str) -> None:
    optimizer, flags, message = EXCLUSIONS[row]
    with pytest.raises(ValueError, match=message):
        optimizer(parameters(), **flags)


@pytest.mark.parametrize("flag", ["foreach", "fused", "compiled", "capturable", "differentiable"])
def test_flags_of_another_type_are_refused(flag: str) -> None:
    options: dict[str, Any] = {flag: "yes"}
    with pytest.raises(TypeError, match=f"Invalid {flag}: 'yes' "):
        inna_torch.INNA(parameters(), **options)


SPOILERS: dict[str, tuple[Callable[[list[Any], Any], Any], str]] = {
    "gradient shape": (lambda ps, o: setattr(ps[-2], "data", torch.ones(3, dtype=torch.float64)), "Invalid grad"),
    "state shape": (
        lambda ps, o: o.state[ps[-2]].update(velocity=torch.ones(3, dtype=torch.float64)),
        "Invalid state: velocity",
    ),
    "sparse": (lambda ps, o: setattr(ps[1], "grad", torch.ones(7, dtype=torch.float64).to_sparse()), "sparse"),
    "parameter dtype": (
        lambda ps, o: (setattr(ps[-2], "data", ps[-2].data.float()), setattr(ps[-2], "grad", torch.ones_like(ps[-2]))),
        "Invalid state: velocity of dtype torch.float64",
    ),
    "state dtype": (
        lambda ps, o: o.state[ps[-2]].update(velocity=torch.ones(2, 3, 4, 5, dtype=torch.int64)),
        "Invalid state: velocity of dtype torch.int64",
    ),
    "state not a tensor": (lambda ps, o: o.state[ps[-2]].update(velocity=None), "Invalid state: velocity is None"),
    "step not a tensor": (lambda ps, o: o.state[ps[-2]].update(step=1), "Invalid state: step is 1"),
    "state field missing": (
        lambda ps, o: (o.state[ps[-2]].pop("velocity"), o.state[ps[-2]].update(other=torch.ones(1))),
        r"Invalid state: .*expected \['velocity'\] too",
    ),
    "lr": (lambda ps, o: o.param_groups[-1].update(lr=float("nan")), "Invalid lr: nan"),
    "lr in a tensor": (lambda ps, o: o.param_groups[-1].update(lr=torch.tensor(-1.0)), "Invalid lr: -1.0"),
    "capturable": (lambda ps, o: o.param_groups[-1].update(capturable=True), "Invalid (capturable|compiled): True"),
    "device": (
        lambda ps, o: o.state[ps[-2]].update(velocity=torch.ones(2, 3, 4, 5, device="meta", dtype=torch.float64)),
        "Invalid state: velocity .* on meta",
    ),
}


@pytest.mark.parametrize("spoiler", SPOILERS)
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_a_step_that_raises_changes_nothing(optimizer: Any, flags: dict[str, Any], spoiler: str) -> None:
    params = parameters()
    instance = optimizer([{"params": params[:2]}, {"params": params[2:]}], lr=0.05, **flags)
    for k in range(2):
        set_gradients(params, k)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fused=True, but")
            instance.step()
    set_gradients(params, 2)
    spoil, message = SPOILERS[spoiler]
    spoil(params, instance)
    before = [p.detach().clone() for p in params]
    state = {i: copy.deepcopy(dict(instance.state[p])) for i, p in enumerate(params)}
    with pytest.raises((RuntimeError, ValueError, TypeError), match=message):
        instance.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    for i, p in enumerate(params):
        for name, value in instance.state[p].items():
            if isinstance(value, torch.Tensor) and value.device.type != "meta":
                assert torch.equal(value, state[i][name])
            else:
                assert repr(value) == repr(state[i][name])


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_warning_made_an_error_changes_nothing(optimizer: Any) -> None:
    """It comes with the second group, before the first one has moved."""
    params = parameters()
    instance = optimizer([{"params": params[:2], "lr": 0.01}, {"params": params[2:], "lr": 7.0}], fused=True)
    set_gradients(params, 0)
    before = [p.detach().clone() for p in params]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="fused=True, but"):
            instance.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
