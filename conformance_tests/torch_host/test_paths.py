"""Which path a torch step takes, that all paths share one state, and what a step costs in memory."""

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402
from conformance_tests.matrix.hosts import no_compiler  # noqa: E402
from inna_core import INNA as CORE_INNA  # noqa: E402
from inna_torch import _tensors  # noqa: E402
from inna_torch.paths import compiled as compiled_path  # noqa: E402

SHAPES = ((), (7,), (3, 4), (2, 3, 4, 5), (0, 5))
PATHS: dict[str, dict[str, Any]] = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "default": {},
    "compiled": {"compiled": True},
    "all compiled": {"compiled": True, "foreach": False},
}
COMPILES = pytest.mark.skipif(no_compiler() is not None, reason=str(no_compiler()))
OPTIMIZERS: dict[str, Any] = {"INNA": inna_torch.INNA, "INNAprop": inna_torch.INNAprop}
ROWS = [
    pytest.param(optimizer, flags, id=f"{name}-{path}", marks=[COMPILES] if "compiled" in flags else [])
    for name, optimizer in OPTIMIZERS.items()
    for path, flags in PATHS.items()
]


def parameters(dtype: Any = None, shapes: Any = SHAPES, seed: int = 0) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=dtype or torch.float64)) for s in shapes]


def set_gradients(params: list[Any], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


def difference(a: list[Any], b: list[Any]) -> float:
    return max((float((x - y).detach().abs().max()) for x, y in zip(a, b, strict=True) if x.numel()), default=0.0)


def counted_calls() -> Any:
    return mock.patch.object(torch, "_fused_sgd_", wraps=torch._fused_sgd_)


# Which path

TAKES_KERNEL: dict[str, tuple[dict[str, Any], bool]] = {
    "default": ({}, True),
    "asked for": ({"fused": True}, True),
    "foreach": ({"foreach": True}, False),
    "neither": ({"foreach": False}, False),
    "fused off": ({"fused": False}, False),
    "lr below beta": ({"lr": 0.03}, True),
    "lr is beta": ({"lr": 0.1}, True),
    "lr above beta": ({"lr": 0.15}, True),
    "lr far above beta": ({"lr": 0.5}, False),
    "alpha lr is 1": ({"alpha": 10.0, "lr": 0.1}, False),
    "alpha lr near 1": ({"alpha": 19.0, "lr": 0.05}, False),
    "alpha beta is 1": ({"alpha": 10.0, "lr": 0.01}, True),
    "lr 0": ({"lr": 0.0}, True),
    "decay": ({"weight_decay": 0.1}, True),
    "lr in a tensor": ({"lr": torch.tensor(0.03)}, True),
    "Kahan": ({"kahan_sum": True}, False),
}


@pytest.mark.parametrize("row", TAKES_KERNEL)
def test_the_kernel_is_taken_where_it_is_accurate(row: str) -> None:
    flags, expected = TAKES_KERNEL[row]
    params = parameters(torch.float32)
    optimizer = inna_torch.INNA(params, **flags)
    set_gradients(params, 1)
    with counted_calls() as kernel:
        optimizer.step()
    assert (kernel.call_count > 0) is expected


ADAMW_KERNEL: dict[str, tuple[dict[str, Any], Any, bool]] = {
    "default": ({}, torch.float32, True),
    "asked for": ({"fused": True}, torch.float32, True),
    "foreach": ({"foreach": True}, torch.float32, False),
    "float64": ({}, torch.float64, True),
    "published decay": ({"published_decay": True}, torch.float32, False),
    "lr above beta": ({"lr": 1.0}, torch.float32, False),
    "near 1 / alpha": ({"lr": 0.09, "alpha": 10.0}, torch.float32, False),
}


@pytest.mark.parametrize("row", ADAMW_KERNEL)
def test_innaprop_takes_the_adamw_kernel(row: str) -> None:
    flags, dtype, expected = ADAMW_KERNEL[row]
    params = parameters(dtype)
    optimizer = inna_torch.INNAprop(params, **flags)
    set_gradients(params, 1)
    with mock.patch.object(torch, "_fused_adamw_", wraps=torch._fused_adamw_) as kernel:
        optimizer.step()
    assert (kernel.call_count > 0) is expected


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_kernels_ascend_as_the_core_does(optimizer: Any, maximize: bool) -> None:
    ours, plain = parameters(torch.float32), parameters(torch.float32)
    flags = {"lr": 0.05, "maximize": maximize, "weight_decay": 0.3}
    a, b = optimizer(ours, fused=True, **flags), optimizer(plain, foreach=False, **flags)
    for k in range(4):
        set_gradients(ours, k)
        set_gradients(plain, k)
        a.step()  # a fallback would warn, and that is an error
        b.step()
        assert difference(ours, plain) < 2e-6


def test_fused_says_where_it_falls_back() -> None:
    params = parameters(torch.float32)
    optimizer = inna_torch.INNA(params, lr=0.5, fused=True)
    set_gradients(params, 1)
    with pytest.warns(UserWarning, match="fused=True, but the foreach path is taken"):
        optimizer.step()
    optimizer.step()  # says it once; a second warning would be an error


@pytest.mark.parametrize("layout", ["channels_last", "transposed gradient", "expanded", "strided"])
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_memory_layouts(optimizer: Any, flags: dict[str, Any], layout: str) -> None:
    """The kernel ignores strides, so a layout that differs between parameter and gradient must not reach it."""
    generator = torch.Generator().manual_seed(0)
    x, g = (torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float32) for _ in range(2))
    p = torch.nn.Parameter(x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x.clone())
    q = torch.nn.Parameter(x.clone())
    ours, plain = optimizer([p], lr=0.05, **flags), optimizer([q], lr=0.05, foreach=False)
    for _ in range(3):
        q.grad = g.clone()
        if layout == "channels_last":
            p.grad = g.contiguous(memory_format=torch.channels_last)
        elif layout == "transposed gradient":
            p.grad = g.transpose(2, 3).contiguous().transpose(2, 3)
        elif layout == "expanded":
            p.grad = g[:1].expand(2, 3, 4, 4)
            q.grad = g[:1].repeat(2, 1, 1, 1)
        else:
            p.grad = torch.stack([g, 0 * g], -1)[..., 0]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fused=True, but")
            ours.step()
        plain.step()
        assert difference([p], [q]) < 1e-6
    assert p.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")


@pytest.mark.parametrize("flags", [{"fused": True}, {"foreach": True}, {"published_decay": True}], ids=str)
def test_large_tensors_are_updated_block_by_block(flags: dict[str, Any], monkeypatch: Any) -> None:
    """Blocks cut tensors of equal layout, and take others whole."""
    monkeypatch.setattr(_tensors, "CACHE_BLOCK_NUMEL", 2**10)
    shapes = ((300_000,), (5,), (400, 400), (3, 100, 10, 10))
    ours, plain = parameters(torch.float64, shapes), parameters(torch.float64, shapes)
    ours[2].data = ours[2].data.t().contiguous().t()
    flags = {"lr": 0.03, "weight_decay": 0.2, **flags}
    a = inna_torch.INNAprop(ours, **flags)
    b = inna_torch.INNAprop(plain, **{**flags, "fused": False, "foreach": None})
    for k in range(3):
        set_gradients(ours, k)
        ours[2].grad = ours[2].grad.t().contiguous().t()
        set_gradients(plain, k)
        a.step()
        b.step()
        assert difference(ours, plain) < 1e-13


def graphs() -> int:
    """Return how many graphs torch.compile has made in this process."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


@COMPILES
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_one_graph_serves_all_lengths_and_numbers(optimizer: Any) -> None:
    """Whatever the shapes, their number, and the hyperparameters."""
    torch._dynamo.reset()
    compiled_path.compiled_update.cache_clear()
    started = graphs()
    for shapes in (((20_000,),), ((2,), (7, 3), (40_000,), (130, 3, 50)), ((2, 2, 2, 2),)):
        ours, plain = (parameters(torch.float32, shapes) for _ in range(2))
        a, b = optimizer(ours, compiled=True, foreach=False), optimizer(plain, foreach=False)
        for k in range(3):
            set_gradients(ours, k)
            set_gradients(plain, k)
            for group in (*a.param_groups, *b.param_groups):
                group.update(lr=0.05 / (k + 1), alpha=0.3 * k, beta=0.5 + k, weight_decay=0.1 * k)
            a.step()
            b.step()
            assert difference(ours, plain) < 1e-6
        assert graphs() == started + 1


TAKES_COMPILED: dict[str, tuple[Any, dict[str, Any], str, int, bool]] = {
    "INNAprop, large": (inna_torch.INNAprop, {}, "float32", 20_000, True),
    "INNAprop, small": (inna_torch.INNAprop, {}, "float32", 10_000, False),
    "INNAprop, small, no kernel": (inna_torch.INNAprop, {"published_decay": True}, "float32", 100, True),
    "INNAprop, one element": (inna_torch.INNAprop, {}, "bfloat16", 1, False),
    "INNA, large": (inna_torch.INNA, {}, "float32", 20_000, False),
    "INNA, narrow": (inna_torch.INNA, {}, "bfloat16", 100, True),
    "INNA, lr far above beta": (inna_torch.INNA, {"lr": 0.5}, "float32", 20_000, False),
}


@COMPILES
@pytest.mark.parametrize("row", TAKES_COMPILED)
def test_compiled_code_is_taken_where_it_pays(row: str) -> None:
    optimizer, flags, dtype, length, takes = TAKES_COMPILED[row]
    torch._dynamo.reset()
    compiled_path.compiled_update.cache_clear()
    params, started = parameters(getattr(torch, dtype), ((length,),)), graphs()
    instance = optimizer(params, compiled=True, **flags)
    for k in range(3):
        set_gradients(params, k)
        instance.step()
    assert graphs() == started + takes


def test_without_a_compiler_nothing_changes(monkeypatch: Any) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("no compiler")

    compiled_path.compiled_update.cache_clear()
    monkeypatch.setattr(torch, "compile", fail)
    params = parameters()
    instance = inna_torch.INNA(
        [{"params": params[:2]}, {"params": params[2:], "compiled": True}], lr=0.05, foreach=False
    )
    set_gradients(params, 0)
    before = [p.detach().clone() for p in params]
    with pytest.raises(RuntimeError, match=r"Invalid compiled: True \(expected False where .* INNA\): no compiler"):
        instance.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_plain_path_takes_large_tensors_in_pieces(optimizer: Any, dtype: str, monkeypatch: Any) -> None:
    """Bit by bit what it makes of the whole, but for vector units' other rounding of a rest; a step is counted once."""
    shapes = ((300,), (40, 40), (3, 10, 10, 2))
    ours, plain = (parameters(getattr(torch, dtype), shapes) for _ in range(2))
    ours[1].data = ours[1].data.t().contiguous().t()
    a, b = (optimizer(params, lr=0.05, weight_decay=0.1, foreach=False) for params in (ours, plain))
    for k in range(3):
        set_gradients(ours, k)
        ours[1].grad = ours[1].grad.t().contiguous().t()
        set_gradients(plain, k)
        with monkeypatch.context() as patch:
            patch.setattr(_tensors, "CACHE_BLOCK_NUMEL", 64)
            a.step()
        b.step()
    for p, q in zip(ours, plain, strict=True):
        assert set(a.state[p]) == set(b.state[q])
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6 if dtype == "float32" else 0.0)
        for name, x in a.state[p].items():
            torch.testing.assert_close(x, b.state[q][name], rtol=1e-6, atol=1e-6)


@COMPILES
def test_a_step_that_must_be_compiled_anew_and_cannot_changes_nothing() -> None:
    params = parameters()
    instance = inna_torch.INNA(
        [{"params": params[:2]}, {"params": params[2:], "compiled": True}], lr=0.05, foreach=False
    )
    set_gradients(params, 0)
    instance.step()
    before = [p.detach().clone() for p in params]
    state = [{name: x.clone() for name, x in instance.state[p].items()} for p in params]
    torch._dynamo.reset()
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="Invalid compiled: True"):
        instance.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    for p, kept in zip(params, state, strict=True):
        assert all(torch.equal(instance.state[p][name], x) for name, x in kept.items())


@COMPILES
def test_a_compiled_step_leaves_the_record_of_warnings_alone() -> None:
    """A warning that is shown once for its place is not shown again after each step."""
    (p,) = params = parameters(torch.bfloat16, ((40,),))
    instance = inna_torch.INNA(params, lr=0.05, compiled=True)
    set_gradients(params, 0)
    instance.step()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(3):
            warnings.warn("the user's own", UserWarning, stacklevel=1)
            instance.step()
    assert [str(w.message) for w in shown] == ["the user's own"]
    assert p.isfinite().all()


@COMPILES
def test_gradients_with_a_graph_need_no_other_code() -> None:
    torch._dynamo.reset()
    compiled_path.compiled_update.cache_clear()
    (p,), started = parameters(torch.bfloat16, ((40,),)), graphs()
    instance = inna_torch.INNA([p], lr=0.05, compiled=True)
    for create_graph in (False, True):
        (p.grad,) = torch.autograd.grad((p**3).sum(), [p], create_graph=create_graph)
        instance.step()
    assert graphs() == started + 1


# One state

SCHEDULE = [0.02, 0.05, 0.099, 0.1, 0.12, 0.19, 0.3, 0.5, 0.19, 0.1, 0.05, 1e-3, 1e-6, 0.0, 0.03, 0.03]
"""For beta = 0.1: up to it, exactly there, above, beyond what the kernel can do, and back."""


@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_schedule_across_beta_equals_the_core(alpha: float, dtype: Any) -> None:
    params = parameters(dtype)
    optimizer = inna_torch.INNA(params, alpha=alpha, beta=0.1)
    core = CORE_INNA(alpha, 0.1)
    exact = [p.detach().to(torch.float64, copy=True) for p in params]
    states = [core.init(p) for p in exact]
    for k, lr in enumerate(SCHEDULE):
        set_gradients(params, k)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        for i, p in enumerate(params):
            delta, states[i] = core.update(p.grad.to(torch.float64), states[i], exact[i], lr)
            exact[i] = exact[i] + delta
    bound = 1e3 * torch.finfo(dtype).eps
    assert difference(params, exact) < bound
    assert difference([optimizer.state[p]["velocity"] for p in params], [s.velocity for s in states]) < bound


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_checkpoint_moves_between_all_paths(optimizer: Any) -> None:
    flags = [flags for flags in PATHS.values() if "compiled" not in flags or not no_compiler()] * 2
    moving, staying = parameters(torch.float32), parameters(torch.float32)
    plain = optimizer(staying, lr=0.05, foreach=False)
    saved = None
    for k, chosen in enumerate(flags):
        current = optimizer(moving, lr=0.05, **chosen)
        if saved is not None:
            current.load_state_dict({**saved, "param_groups": current.state_dict()["param_groups"]})
        for j in range(3):
            set_gradients(moving, 10 * k + j)
            set_gradients(staying, 10 * k + j)
            current.step()
            plain.step()
        saved = copy.deepcopy(current.state_dict())
        assert difference(moving, staying) < 1e-5
        assert [type(state) for state in saved["state"].values()] == [dict] * len(SHAPES)
        for theirs, p in zip(saved["state"].values(), staying, strict=True):
            assert set(theirs) == set(plain.state[p])
            assert difference([theirs["velocity"]], [plain.state[p]["velocity"]]) < 1e-5


READERS: dict[str, Callable[[Any, Any], Any]] = {
    "item": lambda optimizer, p: optimizer.state[p]["velocity"],
    "get": lambda optimizer, p: optimizer.state[p].get("velocity"),
    "items": lambda optimizer, p: dict(optimizer.state[p].items())["velocity"],
    "values": lambda optimizer, p: next(iter(optimizer.state[p].values())),
    "dict": lambda optimizer, p: dict(optimizer.state[p])["velocity"],
    "unpacked": lambda optimizer, p: {**optimizer.state[p]}["velocity"],
    "copy": lambda optimizer, p: copy.copy(optimizer.state[p])["velocity"],
    "copied": lambda optimizer, p: optimizer.state[p].copy()["velocity"],
    "deepcopy": lambda optimizer, p: copy.deepcopy(optimizer.state[p])["velocity"],
    "pickle": lambda optimizer, p: pickle.loads(pickle.dumps(optimizer.state[p]))["velocity"],
    "state_dict": lambda optimizer, p: optimizer.state_dict()["state"][2]["velocity"],
    "pickled optimizer": lambda optimizer, p: list(pickle.loads(pickle.dumps(optimizer)).state.values())[2]["velocity"],
}


@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_the_state_finds_the_velocity(reader: str) -> None:
    ours, plain = parameters(), parameters()
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05, foreach=False)
    held = before = None
    for k in range(4):
        set_gradients(ours, k)
        set_gradients(plain, k)
        with counted_calls() as kernel:
            a.step()
        # one call for what has been read since, one for the rest
        assert sum(len(call.args[0]) for call in kernel.call_args_list) == len(ours)
        b.step()
        if held is not None and before is not None:  # what was read before the step still is what it was
            assert torch.equal(held, before)
        held = READERS[reader](a, ours[2])
        before = held.clone()
        assert difference([held], [b.state[plain[2]]["velocity"]]) < 1e-14
    assert difference(ours, plain) < 1e-14


def test_a_velocity_reset_between_steps_counts() -> None:
    ours, plain = parameters(), parameters()
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05, foreach=False)
    for k in range(4):
        set_gradients(ours, k)
        set_gradients(plain, k)
        a.step()
        b.step()
        for optimizer in (a, b):
            for state in optimizer.state.values():
                state["velocity"].zero_()
    assert difference(ours, plain) < 1e-14


@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_the_state_is_one_buffer_for_each_moment(optimizer: Any, flags: dict[str, Any]) -> None:
    for dtype, extra in ((torch.float32, 0), (torch.bfloat16, 1)):
        params = parameters(dtype)
        instance = optimizer(params, lr=0.05, **flags)
        set_gradients(params, 0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fused=True, but")
            instance.step()
        buffers = [name for name, x in instance.state[params[2]].items() if x.shape == params[2].shape]
        assert len(buffers) == (1 if optimizer is inna_torch.INNA else 2) + extra


# What happens with bad arguments

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
def test_flags_that_exclude_each_other_are_refused(row: str) -> None:
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


WRITERS: dict[str, Callable[[Any, Any], Any]] = {
    "item": lambda state, v: state.__setitem__("velocity", v),
    "update": lambda state, v: state.update(velocity=v),
    "or": lambda state, v: state.__ior__({"velocity": v}),
    "del": lambda state, v: (state.__delitem__("velocity"), state.setdefault("velocity", v)),
    "pop": lambda state, v: (state.pop("velocity"), state.update({"velocity": v})),
    "popitem": lambda state, v: (state.popitem(), state.update(velocity=v)),
    "clear": lambda state, v: (state.clear(), state.update(velocity=v)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_whoever_writes_a_velocity_is_believed(writer: str) -> None:
    ours, plain = parameters(), parameters()
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05, foreach=False)
    for k in range(4):
        if k == 2:
            WRITERS[writer](a.state[ours[2]], torch.ones_like(ours[2]))
            b.state[plain[2]]["velocity"] = torch.ones_like(plain[2])
        for params, optimizer in ((ours, a), (plain, b)):
            set_gradients(params, k)
            optimizer.step()
        assert difference(ours, plain) < 1e-13


@pytest.mark.parametrize("layout", ["channels_last", "beside another dtype"])
def test_the_kernel_goes_on_in_the_same_memory(layout: str) -> None:
    params = parameters(torch.float32, ((2, 3, 4, 4), (5,)))
    if layout == "channels_last":
        params[0].data = params[0].data.contiguous(memory_format=torch.channels_last)
    else:
        params[1].data = params[1].data.double()
    optimizer = inna_torch.INNA(params, lr=0.05)
    memory = set()
    for _ in range(4):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        memory.add(dict.__getitem__(optimizer.state[params[0]], "velocity").data_ptr())
    assert len(memory) == 1


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_a_gradient_that_is_not_finite_stays_where_it_is(optimizer: Any, flags: dict[str, Any], bad: float) -> None:
    """It ruins its own element alone, and nobody writes to it."""
    params = parameters(torch.float32, ((40,), (3, 3), (70_000,)))
    instance = optimizer(params, lr=0.01, **flags)
    set_gradients(params, 0)
    params[0].grad[7] = params[2].grad[69_999] = bad
    kept = [p.grad.clone() for p in params]
    instance.step()
    for p, g in zip(params, kept, strict=True):
        assert torch.equal(torch.nan_to_num(p.grad, nan=1e9), torch.nan_to_num(g, nan=1e9))
        assert torch.equal(p.isfinite(), g.isfinite())
