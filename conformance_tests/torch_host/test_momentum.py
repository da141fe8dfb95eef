"""torch optimizers given by momentum and lead: SGD's and AdamW's settings, groups, schedulers, saved states."""

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402
from conformance_tests.torch_host.rows import OPTIMIZERS, PATHS, ROWS, difference, parameters, set_gradients  # noqa: E402

each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


def trained(make: Any, n: int = 50, lrs: Any = None) -> list[Any]:
    params = parameters()
    optimizer = make(params)
    for k in range(n):
        set_gradients(params, k)
        for group in optimizer.param_groups:
            group["lr"] = lrs(k) if lrs else group["lr"]
        optimizer.step()
    return params


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_leads_1_and_1_plus_momentum_are_the_heavy_ball_and_nesterovs_of_sgd(path: str, nesterov: bool) -> None:
    lead = None if nesterov else 1.0
    got = trained(lambda ps: inna_torch.INNA(ps, 0.1, momentum=0.9, lead=lead, **PATHS[path]))
    want = trained(lambda ps: torch.optim.SGD(ps, 0.1, momentum=0.9, nesterov=nesterov))
    assert difference(got, want) <= 1e-10


@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_dampings_that_follow_the_step_size_are_momentum_and_lead(optimizer: Any, flags: Any) -> None:
    """A run whose alpha, beta and weight decay are set by hand before each step is the run with momentum and lead."""
    momentum, lead, decay = 0.8, 1.5, 0.3
    unit = 1.0 if optimizer is inna_torch.INNA else 1 - momentum

    def eta(k: int) -> float:
        return 0.1 * (1 + k % 7)

    by_hand = parameters()
    mixed = optimizer(by_hand, **flags)
    for k in range(20):
        set_gradients(by_hand, k)
        gamma = (eta(k) * unit) ** 0.5
        dampings = {"alpha": (1 - momentum) / gamma, "beta": lead * gamma, "momentum": None, "lead": None}
        own = {"alpha": None, "beta": None, "momentum": momentum, "lead": lead}
        # a run may change from one parametrization to the other, since their states are the same
        as_paper = {"lr": gamma, "weight_decay": decay * eta(k) / gamma, **dampings}
        mixed.param_groups[0].update(as_paper if k % 2 else {"lr": eta(k), "weight_decay": decay, **own})
        mixed.step()
    got = trained(lambda ps: optimizer(ps, momentum=momentum, lead=lead, weight_decay=decay, **flags), n=20, lrs=eta)
    assert difference(got, by_hand) <= 1e-12


@each_optimizer
def test_a_group_may_choose_the_other_parametrization(optimizer: Any) -> None:
    params = parameters()
    groups: list[Any] = [{"params": params[:2], "momentum": 0.9}, {"params": params[2:]}]
    plain = optimizer(groups, alpha=0.3)
    assert [(g["alpha"], g["momentum"]) for g in plain.param_groups] == [(None, 0.9), (0.3, None)]
    other = optimizer([{"params": params[:2], "alpha": 0.3}, {"params": params[2:]}], momentum=0.9)
    assert [(g["alpha"], g["momentum"]) for g in other.param_groups] == [(0.3, None), (None, 0.9)]
    with pytest.raises(ValueError, match=r"Invalid alpha: 0\.3 "):
        other.add_param_group({"params": parameters(shapes=((2,),)), "momentum": 0.5, "alpha": 0.3})
    set_gradients(params, 0)
    plain.step()
    other.step()


def test_betas_are_momentum_and_sigma() -> None:
    decay, others = parameters()[:2], parameters()[2:]
    groups: list[Any] = [{"params": decay, "betas": (0.8, 0.95)}, {"params": others, "weight_decay": 0.0}]
    optimizer = inna_torch.INNAprop(groups, 3e-3, betas=(0.9, 0.99))
    assert [(g["momentum"], g["sigma"]) for g in optimizer.param_groups] == [(0.8, 0.95), (0.9, 0.99)]
    assert not any("betas" in group for group in optimizer.param_groups)


BAD_BETAS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"betas": (0.9,)}, TypeError),
    ({"betas": (0.9, 0.99), "momentum": 0.9}, ValueError),
    ({"betas": (0.9, 0.99), "sigma": 0.5}, ValueError),
]


@pytest.mark.parametrize(("bad", "error"), BAD_BETAS)
def test_betas_of_one_number_or_beside_what_they_set_are_refused(bad: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="Invalid betas: "):
        inna_torch.INNAprop(parameters(), **bad)


def test_inna_refuses_betas() -> None:
    with pytest.raises(TypeError, match=r"INNA.*'betas'"):
        inna_torch.INNA(parameters(), betas=(0.9, 0.99))  # type: ignore[call-arg]
    groups: list[Any] = [{"params": parameters(), "betas": (0.9, 0.99)}]
    with pytest.raises(TypeError, match=r"Invalid betas: \(0.9, 0.99\) \(expected momentum in its place"):
        inna_torch.INNA(groups)


@each_optimizer
@pytest.mark.parametrize("scheduler", ["OneCycleLR", "CyclicLR"])
def test_schedulers_cycle_the_momentum(optimizer: Any, scheduler: str) -> None:
    """And the steps are those of an optimizer that is given the same numbers by hand, on the plain path."""
    ours, plain = parameters(), parameters()
    a, b = optimizer(ours, 0.01, momentum=0.9), optimizer(plain, 0.01, momentum=0.9, foreach=False)
    numbers = {"OneCycleLR": {"max_lr": 0.1, "total_steps": 20}, "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1}}
    schedule: Any = getattr(torch.optim.lr_scheduler, scheduler)(a, **numbers[scheduler])
    momenta = set()
    for k in range(19):
        set_gradients(ours, k)
        set_gradients(plain, k)
        lr, momentum = (float(a.param_groups[0][name]) for name in ("lr", "momentum"))
        b.param_groups[0].update(lr=lr, momentum=momentum)
        a.step()
        b.step()
        momenta.add(momentum)
        schedule.step()
        assert difference(ours, plain) <= 1e-12
    assert len(momenta) > 10


@each_optimizer
def test_groups_saved_before_momentum_existed_keep_their_dampings(optimizer: Any) -> None:
    params = parameters()
    set_gradients(params, 0)
    old = optimizer(params, alpha=0.3, beta=0.2)
    old.step()
    saved = old.state_dict()
    for group in saved["param_groups"]:
        del group["momentum"], group["lead"]
    new = optimizer(parameters(), momentum=0.9)
    new.load_state_dict(saved)
    entries = {name: new.param_groups[0][name] for name in ("alpha", "beta", "momentum", "lead")}
    assert entries == {"alpha": 0.3, "beta": 0.2, "momentum": None, "lead": None}
    set_gradients(new.param_groups[0]["params"], 1)
    new.step()


@each_optimizer
def test_optimizers_pickled_before_momentum_existed_take_groups(optimizer: Any) -> None:
    old = optimizer(parameters(), alpha=0.3, beta=0.2)
    state = old.__getstate__()
    for entries in (state["defaults"], *state["param_groups"]):
        for name in ("momentum", "lead"):
            entries.pop(name, None)
    new = optimizer.__new__(optimizer)
    new.__setstate__(state)
    more = parameters(shapes=((2,),))
    new.add_param_group({"params": more})
    assert [group["alpha"] for group in new.param_groups] == [0.3, 0.3]
    set_gradients(more, 0)
    new.step()


@each_optimizer
def test_schedulers_find_no_momentum_where_dampings_are_given(optimizer: Any) -> None:
    with pytest.raises(ValueError, match="momentum"):
        torch.optim.lr_scheduler.OneCycleLR(optimizer(parameters()), max_lr=0.1, total_steps=20)


@each_optimizer
def test_derivatives_pass_a_step_at_lr_zero(optimizer: Any) -> None:
    """By the peak of a schedule that starts at 0, against a difference quotient."""

    def loss(peak: Any) -> Any:
        (start,) = parameters(shapes=((4,),))
        p = start.detach().clone()
        own = optimizer([p], momentum=0.9, weight_decay=0.1, differentiable=True)
        for k in range(4):
            p.grad = torch.full_like(p, 1.0 + k).detach()
            own.param_groups[0]["lr"] = peak * k / 3
            own.step()
        return p.square().sum()

    peak = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(loss(peak), peak)
    with torch.no_grad():
        quotient = (loss(peak + 1e-6) - loss(peak - 1e-6)) / 2e-6
    assert abs(float(found - quotient)) <= 1e-6 * max(1.0, abs(float(quotient)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lead", [1.0000001, 1.9, 3.0])
def test_tiny_step_sizes_do_not_overflow_the_scaled_velocity(lead: float, dtype: Any) -> None:
    """The default path against the single one, which scales nothing."""
    lrs = [0.1, 0.1, 1e-30, 1e-80, 1e-300, 0.0, 1e-300, 0.1]
    ends = []
    for foreach in (None, False):
        params = parameters(dtype)
        optimizer = inna_torch.INNA(params, lr=0.1, momentum=0.9, lead=lead, foreach=foreach)
        for k, lr in enumerate(lrs):
            optimizer.param_groups[0]["lr"] = lr
            set_gradients(params, k)
            optimizer.step()
        ends.append([p.detach() for p in params])
    for p, q in zip(*ends, strict=True):
        torch.testing.assert_close(p, q)
