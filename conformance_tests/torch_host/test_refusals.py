"""What is refused, by which words, and that nothing has changed then."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402
from conformance_tests.torch_host.rows import OPTIMIZERS, ROWS, parameters, set_gradients  # noqa: E402

EACH = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)

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
    "lr": (lambda ps, o: o.param_groups[-1].update(lr=float("nan")), "Invalid lr: nan"),
    "lr in a tensor": (lambda ps, o: o.param_groups[-1].update(lr=torch.tensor(-1.0)), "Invalid lr: -1.0"),
    "capturable": (lambda ps, o: o.param_groups[-1].update(capturable=True), "Invalid (capturable|compiled): True"),
    "device": (
        lambda ps, o: o.state[ps[-2]].update(velocity=torch.ones(2, 3, 4, 5, device="meta", dtype=torch.float64)),
        "Invalid state: velocity .* on meta",
    ),
    "expanded parameter": (
        lambda ps, o: setattr(ps[-2], "data", torch.ones((), dtype=torch.float64).expand(2, 3, 4, 5)),
        "Invalid params: an expanded tensor",
    ),
    "expanded state": (
        lambda ps, o: o.state[ps[-2]].update(velocity=torch.ones((), dtype=torch.float64).expand(2, 3, 4, 5)),
        "Invalid state: velocity: an expanded tensor",
    ),
}
SPOILERS_OF_COUNTED_STEPS: dict[str, tuple[Callable[[list[Any], Any], Any], str]] = {
    "step not a tensor": (lambda ps, o: o.state[ps[-2]].update(step=1), "Invalid state: step is 1"),
    "state field missing": (
        lambda ps, o: (o.state[ps[-2]].pop("velocity"), o.state[ps[-2]].update(other=torch.ones(1))),
        r"Invalid state: .*expected \['velocity'\] too",
    ),
}
SPOILED = [
    pytest.param(*row.values, *spoiler, id=f"{row.id}-{name}", marks=row.marks)
    for row in ROWS
    for name, spoiler in {
        **SPOILERS,
        **(SPOILERS_OF_COUNTED_STEPS if row.values[0] is inna_torch.INNAprop else {}),
    }.items()
]


@pytest.mark.parametrize(("optimizer", "flags", "spoil", "message"), SPOILED)
def test_a_step_that_raises_changes_nothing(optimizer: Any, flags: dict[str, Any], spoil: Any, message: str) -> None:
    params = parameters()
    instance = optimizer([{"params": params[:2]}, {"params": params[2:]}], lr=0.05, **flags)
    for k in range(2):
        set_gradients(params, k)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fused=True, but")
            instance.step()
    set_gradients(params, 2)
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


@EACH
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


@pytest.mark.parametrize("gradient", ["leaf", "computed"])
@EACH
def test_a_differentiable_step_refuses_leaves_before_it_changes_others(optimizer: Any, gradient: str) -> None:
    """A leaf that requires gradients cannot be written while autograd records."""
    plain, leaf = torch.ones(3), torch.ones(4, requires_grad=True)
    instance = optimizer([plain, leaf], lr=0.05, differentiable=True)
    plain.grad, leaf.grad = torch.ones(3), torch.ones(4, requires_grad=gradient == "computed")
    with pytest.raises(RuntimeError, match="Invalid params: a leaf that requires gradients"):
        instance.step()
    assert torch.equal(plain, torch.ones(3))
    assert torch.equal(leaf, torch.ones(4))


@EACH
def test_a_parameter_given_twice_is_refused_by_position(optimizer: Any) -> None:
    """A step would update it twice; torch's own optimizers warn."""
    a, b = parameters(torch.float32, ((2,), (3,)))
    with pytest.raises(
        ValueError, match=r"Invalid params: the tensor at position 2, of shape \(2,\), was given before"
    ):
        optimizer([a, b, a])
    instance = optimizer([b])
    with pytest.raises(ValueError, match="Invalid params: the tensor at position 1"):
        instance.add_param_group({"params": [("x", a), ("y", a)]})
    assert [group["params"] for group in instance.param_groups] == [[b]]


NUMBERS: dict[str, tuple[dict[str, Any], str]] = {
    "two elements": ({"lr": torch.tensor([0.1, 0.2])}, "Invalid lr: .*2 elements.* one element"),
    "no element": ({"lr": torch.tensor([])}, "Invalid lr: .*one element"),
    "beta of two elements": ({"beta": torch.tensor([0.1, 0.2])}, "Invalid beta: .*one element"),
    "negative": ({"lr": torch.tensor(-1.0)}, "Invalid lr: -1.0"),
    "nan": ({"alpha": torch.tensor(float("nan"))}, "Invalid alpha: nan"),
    "weight decay": ({"weight_decay": torch.tensor(-0.5)}, "Invalid weight_decay: -0.5"),
}


@pytest.mark.parametrize("row", NUMBERS)
@EACH
def test_numbers_in_tensors_are_validated_at_construction(optimizer: Any, row: str) -> None:
    numbers, message = NUMBERS[row]
    with pytest.raises(ValueError, match=message):
        optimizer(parameters(), **numbers)


@EACH
def test_fused_is_refused_on_devices_without_kernels(optimizer: Any) -> None:
    with pytest.raises(RuntimeError, match=r"Invalid fused: True .* meta"):
        optimizer([torch.nn.Parameter(torch.empty(3, device="meta"))], fused=True)
