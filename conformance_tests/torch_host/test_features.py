"""What else a torch user expects: schedulers, hooks, GradScaler, autograd through a step, compilation."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402
from conformance_tests.torch_host.rows import (  # noqa: E402
    OPTIMIZERS,
    PATHS,
    ROWS,
    difference,
    parameters,
    set_gradients,
)

EACH = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
schedulers = torch.optim.lr_scheduler


def loss_of(params: list[Any]) -> Any:
    return torch.stack([(p * p).sum() for p in params]).sum()


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda k: 0.9**k),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda k: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 2),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, total_iters=3),
    "LinearLR": lambda o: schedulers.LinearLR(o),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 10),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, step_size_up=2, cycle_momentum=False),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.2, total_steps=10, cycle_momentum=False),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.ConstantLR(o), schedulers.ExponentialLR(o, 0.9)], [3]
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o), schedulers.ExponentialLR(o, 0.9)]
    ),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=0),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.01, anneal_epochs=3),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@EACH
def test_a_scheduler_sets_the_step_size(optimizer: Any, name: str) -> None:
    """The fast path under a scheduler equals the plain one that is handed the same step sizes."""
    ours, plain = parameters(torch.float32), parameters(torch.float32)
    a, b = optimizer(ours, lr=0.1), optimizer(plain, lr=0.1, foreach=False)
    scheduler, lrs = SCHEDULERS[name](a), []
    for k in range(6):
        set_gradients(ours, k)
        set_gradients(plain, k)
        lrs.append(float(a.param_groups[0]["lr"]))
        b.param_groups[0]["lr"] = lrs[-1]
        a.step()
        b.step()
        scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
    assert len(set(lrs)) > 1
    assert difference(ours, plain) < 1e-5


def test_weight_averaging() -> None:
    model = torch.nn.Linear(3, 2)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    optimizer, weights = inna_torch.INNA(model.parameters(), lr=0.05), []
    for k in range(3):
        set_gradients(list(model.parameters()), k)
        optimizer.step()
        average.update_parameters(model)
        weights.append(model.weight.detach().clone())
    assert difference([average.module.weight], [0.25 * weights[0] + 0.25 * weights[1] + 0.5 * weights[2]]) < 1e-6


# GradScaler


@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_grad_scaler(optimizer: Any, flags: dict[str, Any]) -> None:
    ours, plain = parameters(torch.float32), parameters(torch.float32)
    a, b = optimizer(ours, lr=0.05, **flags), optimizer(plain, lr=0.05, foreach=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    spoiled = {1: float("nan"), 3: float("inf")}  # elements of gradients of these steps, which are skipped
    for k in range(5):
        a.zero_grad()
        scaler.scale(loss_of(ours)).backward()
        if k in spoiled:
            ours[1].grad[3] = spoiled[k]
        before = [p.detach().clone() for p in ours]
        scaler.step(a)
        scaler.update()
        if k in spoiled:
            assert all(torch.equal(p, x) for p, x in zip(ours, before, strict=True))
            continue
        b.zero_grad()
        loss_of(plain).backward()
        b.step()
        assert difference(ours, plain) < 1e-5
    assert scaler.get_scale() == 256.0
    assert difference([a.state[p]["velocity"] for p in ours], [b.state[p]["velocity"] for p in plain]) < 1e-5


# Hooks, closures, groups


@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_step_and_state_dict_hooks(optimizer: Any, flags: dict[str, Any]) -> None:
    params = parameters(torch.float32)
    instance = optimizer(params, lr=0.05, **flags)
    called: list[str] = []
    instance.register_step_pre_hook(lambda *_: called.append("step pre"))
    instance.register_step_post_hook(lambda *_: called.append("step post"))
    instance.register_state_dict_pre_hook(lambda _: called.append("save pre"))
    instance.register_state_dict_post_hook(lambda _, saved: {**saved, "extra": 1})
    instance.register_load_state_dict_pre_hook(lambda _, saved: {k: v for k, v in saved.items() if k != "extra"})
    instance.register_load_state_dict_post_hook(lambda _: called.append("load post"))
    set_gradients(params, 0)
    instance.step()
    saved = instance.state_dict()
    assert saved["extra"] == 1
    instance.load_state_dict(saved)
    assert called == ["step pre", "step post", "save pre", "load post"]


@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_optimizer_in_backward(optimizer: Any, flags: dict[str, Any]) -> None:
    ours, plain = parameters(torch.float32), parameters(torch.float32)
    each = {p: optimizer([p], lr=0.05, **flags) for p in ours}

    def update(p: Any) -> None:
        each[p].step()
        each[p].zero_grad()

    for p in ours:
        p.register_post_accumulate_grad_hook(update)
    together = optimizer(plain, lr=0.05, foreach=False)
    for _ in range(3):
        loss_of(ours).backward()
        together.zero_grad()
        loss_of(plain).backward()
        together.step()
    assert all(p.grad is None for p in ours)
    assert difference(ours, plain) < 1e-6


@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_groups_missing_gradients_and_late_groups(optimizer: Any, flags: dict[str, Any]) -> None:
    """Each group keeps its own numbers; parameters join late or miss steps, and count their own steps."""
    ours, plain = parameters(), parameters()

    def opened(params: list[Any], **chosen: Any) -> Any:
        groups = [
            {"params": params[:2], "lr": 0.05, "alpha": 0.2},
            {"params": [], "lr": 0.1},
            {"params": [params[2]], "beta": 0.3, "maximize": True, "weight_decay": 0.1},
        ]
        return optimizer(groups, lr=0.06, **chosen)

    instances = opened(ours, **flags), opened(plain, foreach=False)
    for k in range(6):
        for params, instance in zip((ours, plain), instances, strict=True):
            if k == 2:
                instance.add_param_group({"params": params[3:], "lr": 0.07})
            set_gradients(params, k)
            if k % 3 == 1:
                params[1].grad = params[3].grad = None
            with warnings.catch_warnings():  # the kernel leaves some of these settings to the lists
                warnings.filterwarnings("ignore", "fused=True, but")
                assert instance.step(lambda: torch.tensor(3.0)) == 3.0
        assert difference(ours, plain) < 1e-13
    if optimizer is inna_torch.INNAprop:
        assert [float(instances[0].state[p]["step"]) for p in ours] == [6.0, 4.0, 6.0, 3.0, 4.0]


@EACH
@pytest.mark.parametrize("path", ["single", "foreach", "fused", "default"])
def test_a_parameter_that_misses_a_step_goes_on_as_if_alone(optimizer: Any, path: str) -> None:
    """Beside parameters that missed none, and with whose count its bias correction would be another."""
    ours, alone = (parameters(shapes=((7,), (7,), (7,))) for _ in range(2))
    together, apart = optimizer(ours, lr=0.05, **PATHS[path]), [optimizer([p], lr=0.05, foreach=False) for p in alone]
    for k in range(4):
        set_gradients(ours, k)
        set_gradients(alone, k)
        if k == 1:
            ours[1].grad = alone[1].grad = None
        for instance in (together, *apart):
            instance.step()
        assert difference(ours, alone) < 1e-13


@EACH
def test_a_closure_runs_with_gradients(optimizer: Any) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    instance = optimizer([p], lr=0.05)

    def closure() -> Any:
        instance.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert instance.step(closure).item() == 3.0
    assert instance.step(closure).item() < 3.0


@pytest.mark.parametrize("lr", [torch.tensor(0.05), torch.tensor([0.05]), torch.tensor([[0.05]], dtype=torch.float64)])
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_hyperparameters_may_be_tensors(optimizer: Any, flags: dict[str, Any], lr: Any) -> None:
    ours, plain = parameters(torch.float32), parameters(torch.float32)
    a = optimizer(ours, lr=lr.clone(), alpha=torch.tensor(0.5), beta=torch.tensor(0.1), **flags)
    b = optimizer(plain, lr=0.05, alpha=0.5, beta=0.1, foreach=False)
    for k in range(3):
        set_gradients(ours, k)
        set_gradients(plain, k)
        a.step()
        b.step()
    assert difference(ours, plain) < 2e-6


@EACH
def test_named_parameters(optimizer: Any) -> None:
    params = parameters()
    instance = optimizer([("a", params[0]), ("b", params[1])])
    instance.add_param_group({"params": [("c", params[2])], "lr": 0.05})
    set_gradients(params, 0)
    instance.step()
    assert [group["param_names"] for group in instance.state_dict()["param_groups"]] == [["a", "b"], ["c"]]


def test_a_state_from_before_these_flags_loads() -> None:
    params = parameters()
    optimizer = inna_torch.INNA(params, lr=0.05)
    set_gradients(params, 0)
    optimizer.step()
    old = copy.deepcopy(optimizer.state_dict())
    for name in ("foreach", "fused", "compiled", "capturable", "differentiable"):
        del old["param_groups"][0][name]
    optimizer.load_state_dict(old)
    set_gradients(params, 1)
    optimizer.step()
    assert optimizer.param_groups[0]["differentiable"] is False


def test_flags_that_saved_groups_do_not_know_do_not_contradict_theirs() -> None:
    old = inna_torch.INNA(parameters(), fused=True).state_dict()
    del old["param_groups"][0]["compiled"]
    optimizer = inna_torch.INNA(parameters(), compiled=True)
    optimizer.load_state_dict(old)
    assert (optimizer.param_groups[0]["fused"], optimizer.param_groups[0]["compiled"]) == (True, False)
