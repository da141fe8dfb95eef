"""Which path a step takes: where it is accurate, pays, and is asked for."""

import warnings
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402
from conformance_tests.torch_host.rows import (  # noqa: E402
    COMPILES,
    OPTIMIZERS,
    ROWS,
    counted_calls,
    difference,
    parameters,
    set_gradients,
)
from inna_torch import _tensors  # noqa: E402
from inna_torch._batch import gather  # noqa: E402
from inna_torch._hyperparameters import hyperparameters  # noqa: E402
from inna_torch.paths import compiled as compiled_path  # noqa: E402
from inna_torch.paths import fused_sgd  # noqa: E402

TAKES_KERNEL: dict[str, tuple[dict[str, Any], bool]] = {
    "default": ({}, True),
    "asked for": ({"fused": True}, True),
    "foreach": ({"foreach": True}, False),
    "neither": ({"foreach": False}, False),
    "lr tiny": ({"lr": 1e-80, "momentum": 0.9}, False),
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
def test_inna_takes_the_sgd_kernel_where_it_is_accurate(row: str) -> None:
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
    "published decay": ({"published_decay": True}, torch.float32, True),
    "lr above beta": ({"lr": 1.2}, torch.float32, False),
    "near 1 / alpha": ({"lr": 0.09, "alpha": 10.0}, torch.float32, False),
}


@pytest.mark.parametrize("row", ADAMW_KERNEL)
def test_innaprop_takes_the_adamw_kernel_where_it_is_accurate(row: str) -> None:
    flags, dtype, expected = ADAMW_KERNEL[row]
    params = parameters(dtype)
    optimizer = inna_torch.INNAprop(params, **flags)
    set_gradients(params, 1)
    with counted_calls("_fused_adamw_") as kernel:
        optimizer.step()
    assert (kernel.call_count > 0) is expected


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_kernels_maximize_as_the_single_path_does(optimizer: Any, maximize: bool) -> None:
    ours, plain = parameters(torch.float32), parameters(torch.float32)
    flags = {"lr": 0.05, "maximize": maximize, "weight_decay": 0.3}
    a, b = optimizer(ours, fused=True, **flags), optimizer(plain, foreach=False, **flags)
    for k in range(4):
        set_gradients(ours, k)
        set_gradients(plain, k)
        a.step()  # a fallback would warn, and that is an error
        b.step()
        assert difference(ours, plain) < 2e-6


@pytest.mark.parametrize("capturable", [False, True])
def test_a_scaled_velocity_is_kept_from_captured_graphs(capturable: bool) -> None:
    """A replayed graph repeats the call with the scale of the step that was captured."""
    params = parameters(torch.float32)
    optimizer = inna_torch.INNA(params, lr=0.05)
    set_gradients(params, 0)
    hyper = hyperparameters(optimizer.algorithm, optimizer.param_groups[0])
    (batch,) = gather(params, optimizer.state, hyper)
    step = fused_sgd.plan(batch, replace(hyper, capturable=capturable))
    assert (step is None) is capturable


def test_fused_without_foreach_falls_back_to_the_single_path() -> None:
    params = parameters(torch.float32)
    optimizer = inna_torch.INNA(params, lr=0.5, fused=True, foreach=False)
    set_gradients(params, 1)
    with pytest.warns(UserWarning, match="fused=True, but the single path is taken"):
        optimizer.step()


def test_fused_warns_once_where_another_path_is_taken() -> None:
    params = parameters(torch.float32)
    optimizer = inna_torch.INNA(params, lr=0.5, fused=True)
    set_gradients(params, 1)
    with pytest.warns(UserWarning, match="fused=True, but the foreach path is taken"):
        optimizer.step()
    optimizer.step()  # says it once; a second warning would be an error


@pytest.mark.parametrize("layout", ["channels_last", "transposed gradient", "expanded", "strided"])
@pytest.mark.parametrize(("optimizer", "flags"), ROWS)
def test_memory_layouts_do_not_change_the_step(optimizer: Any, flags: dict[str, Any], layout: str) -> None:
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


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("flags", [{"fused": True}, {"foreach": True}, {"published_decay": True}], ids=str)
def test_large_tensors_are_updated_block_by_block(optimizer: Any, flags: dict[str, Any], monkeypatch: Any) -> None:
    """Blocks cut tensors of equal layout, and take others whole."""
    monkeypatch.setattr(_tensors, "CACHE_BLOCK_NUMEL", 2**10)
    monkeypatch.setattr(fused_sgd, "DECAY_BLOCK_NUMEL", 2**10)
    shapes = ((300_000,), (5,), (400, 400), (3, 100, 10, 10))
    ours, plain = parameters(torch.float64, shapes), parameters(torch.float64, shapes)
    ours[2].data = ours[2].data.t().contiguous().t()
    flags = {"lr": 0.05, "weight_decay": 0.2, **flags}
    a = optimizer(ours, **flags)
    b = optimizer(plain, **{**flags, "fused": False, "foreach": None})
    for k in range(3):
        set_gradients(ours, k)
        ours[2].grad = ours[2].grad.t().contiguous().t()
        set_gradients(plain, k)
        a.step()
        b.step()
        assert difference(ours, plain) < 1e-13


def compilations() -> int:
    """Return how many updates have been compiled since the cache was cleared."""
    return compiled_path.compiled_update.cache_info().misses


@COMPILES
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_compiled_code_serves_all_lengths_and_numbers(optimizer: Any) -> None:
    """Whatever the shapes, their number, and the hyperparameters."""
    compiled_path.compiled_update.cache_clear()
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
        assert compilations() == 1


TAKES_COMPILED: dict[str, tuple[Any, dict[str, Any], str, int, bool]] = {
    "INNAprop, large": (inna_torch.INNAprop, {}, "float32", 20_000, True),
    "INNAprop, small": (inna_torch.INNAprop, {}, "float32", 100, True),
    "INNAprop, one element": (inna_torch.INNAprop, {}, "bfloat16", 1, True),
    "INNA, the kernel is as fast": (inna_torch.INNA, {}, "float32", 20_000, False),
    "INNA, narrow": (inna_torch.INNA, {}, "bfloat16", 100, True),
    "INNA, compensated": (inna_torch.INNA, {"kahan_sum": True}, "float32", 100, True),
    "INNA, lr far above beta": (inna_torch.INNA, {"lr": 0.5}, "float32", 20_000, True),
}


@COMPILES
@pytest.mark.parametrize("row", TAKES_COMPILED)
def test_compiled_code_is_taken_where_it_pays(row: str) -> None:
    optimizer, flags, dtype, length, takes = TAKES_COMPILED[row]
    compiled_path.compiled_update.cache_clear()
    params = parameters(getattr(torch, dtype), ((length,),))
    instance = optimizer(params, compiled=True, **flags)
    for k in range(3):
        set_gradients(params, k)
        instance.step()
    assert compilations() == takes


def test_without_a_compiler_a_step_changes_nothing(monkeypatch: Any) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("no compiler")

    compiled_path.compiled_update.cache_clear()
    monkeypatch.setattr(torch._inductor, "compile", fail)
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
def test_single_path_cuts_large_tensors(optimizer: Any, dtype: str, monkeypatch: Any) -> None:
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
def test_a_compiled_step_does_not_reset_warnings_shown_once() -> None:
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
def test_gradients_with_a_graph_reuse_compiled_code() -> None:
    compiled_path.compiled_update.cache_clear()
    (p,) = parameters(torch.bfloat16, ((40,),))
    instance = inna_torch.INNA([p], lr=0.05, compiled=True)
    for create_graph in (False, True):
        (p.grad,) = torch.autograd.grad((p**3).sum(), [p], create_graph=create_graph)
        instance.step()
    assert compilations() == 1
