"""Summaries of a loss: against difference quotients for every layer type, and host against host."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from conformance_tests.newton.networks import STENCIL, STEP, largest_errors, problem

BACKENDS = {"torch": "torch", "jax": "jax", "tensorflow": "tensorflow"}


KERAS_PRECISION = {"tensorflow": 1e-10, "torch": 1e-4, "jax": 1e-4}
"""Of summaries, relative to their largest entry. Keras 3 promotes float64 to float32 on torch (matmul, losses) and on
JAX (tanh), whatever floatx and the policy say, see the test below: what is compared there is float32. A wrong
derivative is wrong by more than 1e-2."""


def skip_without(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


# --- torch


def torch_layers() -> dict[str, Callable[[Any], tuple[Any, tuple[int, ...]]]]:
    """By name: a function of torch.nn that returns a layer and the shape of its input."""

    def wrapped(nn: Any, layer: Any, call: Callable[[Any, Any], Any]) -> Any:
        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = layer

            def forward(self, x: Any) -> Any:
                return call(self.layer, x)

        return Wrapped()

    flat, images, sequences = (4, 6), (4, 3, 5, 5), (3, 4, 6)
    activations = [
        "Tanh",
        "Sigmoid",
        "GELU",
        "SiLU",
        "Softplus",
        "ELU",
        "SELU",
        "CELU",
        "Mish",
        "LogSigmoid",
        "Softsign",
        "ReLU",
        "LeakyReLU",
        "Hardtanh",
        "Hardswish",
        "Tanhshrink",
        "PReLU",
        "GLU",
    ]
    return {
        "Linear": lambda nn: (nn.Linear(6, 5), flat),
        "Conv1d": lambda nn: (nn.Conv1d(4, 4, 3), sequences),
        "Conv2d": lambda nn: (nn.Conv2d(3, 4, 3, padding=1), images),
        "Conv3d": lambda nn: (nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4)),
        "ConvTranspose2d": lambda nn: (nn.ConvTranspose2d(3, 4, 3), images),
        "LayerNorm": lambda nn: (nn.LayerNorm(6), flat),
        "RMSNorm": lambda nn: (nn.RMSNorm(6), flat),
        "BatchNorm1d": lambda nn: (nn.BatchNorm1d(6), (8, 6)),
        "BatchNorm2d": lambda nn: (nn.BatchNorm2d(3), images),
        "BatchNorm1d, eval": lambda nn: (nn.BatchNorm1d(6).eval(), (8, 6)),
        "InstanceNorm2d": lambda nn: (nn.InstanceNorm2d(3, affine=True), images),
        "GroupNorm": lambda nn: (nn.GroupNorm(2, 4), (3, 4, 5, 5)),
        "LocalResponseNorm": lambda nn: (nn.LocalResponseNorm(2), images),
        "MultiheadAttention": lambda nn: (
            wrapped(nn, nn.MultiheadAttention(6, 2, batch_first=True), lambda f, x: f(x, x, x, need_weights=False)[0]),
            sequences,
        ),
        "scaled_dot_product_attention": lambda nn: (
            wrapped(nn, nn.Linear(6, 6), lambda f, x: nn.functional.scaled_dot_product_attention(f(x), x, x * x)),
            sequences,
        ),
        "TransformerEncoderLayer": lambda nn: (
            nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True),
            sequences,
        ),
        **{
            name: lambda nn, name=name: (
                wrapped(nn, getattr(nn, name)(6, 5, batch_first=True), lambda f, x: f(x)[0]),
                sequences,
            )
            for name in ("RNN", "LSTM", "GRU")
        },
        "MaxPool2d": lambda nn: (nn.MaxPool2d(2), images),
        "AvgPool2d": lambda nn: (nn.AvgPool2d(2), images),
        "AdaptiveAvgPool2d": lambda nn: (nn.AdaptiveAvgPool2d(2), images),
        "Softmax": lambda nn: (nn.Softmax(-1), flat),
        "LogSoftmax": lambda nn: (nn.LogSoftmax(-1), flat),
        **{name: lambda nn, name=name: (getattr(nn, name)(), flat) for name in activations},
    }


def torch_net(name: str) -> tuple[Any, Any, list[Any], list[Any]]:
    """Return a network with a layer in the middle, its loss, parameters and direction, in float64."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.manual_seed(5)
    layer, shape = torch_layers()[name](torch.nn)
    net = torch.nn.Sequential(torch.nn.Linear(shape[-1], shape[-1]), layer).double()
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p) * 0.5)
    y = torch.randn_like(net(x))

    def loss() -> Any:
        return (torch.tanh(net(x)) - y).square().mean()

    params = list(net.parameters())
    return net, loss, params, [torch.randn_like(p) * 0.5 for p in params]


def torch_errors(name: str, summary: Callable[..., Any]) -> tuple[float, float, float]:
    import torch

    _, loss, params, direction = torch_net(name)
    start = [p.detach().clone() for p in params]

    def evaluate(group: int, by: float) -> tuple[float, Any]:
        with torch.no_grad():
            for s, (p, p0, u) in enumerate(zip(params, start, direction, strict=True)):
                p.copy_(p0 + by * u * (s == group))
        return float(loss().detach()), [x.numpy() for x in summary(loss, params, direction)]

    return largest_errors(evaluate, len(params))


@pytest.mark.parametrize("name", torch_layers())
def test_torch_layers_against_difference_quotients(name: str) -> None:
    """Relative to the largest entry of g, H and T, to 1e-8."""
    pytest.importorskip("torch", reason="torch is not installed")
    from inna_torch import summary

    assert max(torch_errors(name, summary)) <= 1e-8


@pytest.mark.parametrize("name", ["LayerNorm", "BatchNorm1d", "InstanceNorm2d"])
def test_the_trap_is_there(name: str) -> None:
    """Torch's own normalisations have a wrong third derivative: without the replacements the test above would fail."""
    torch = pytest.importorskip("torch", reason="torch is not installed")

    def naive(loss: Any, params: list[Any], direction: list[Any]) -> list[Any]:
        from torch.func import functional_call

        net, _, _, _ = torch_net(name)
        assert loss.__closure__ is not None
        cells = dict(zip(loss.__code__.co_freevars, (c.cell_contents for c in loss.__closure__), strict=True))
        names = [key for key, _ in net.named_parameters()]
        mu = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in params]
        moved = {k: p.detach() + m * u for k, p, m, u in zip(names, params, mu, direction, strict=True)}
        output = functional_call(cells["net"], moved, (cells["x"],))
        value = (torch.tanh(output) - cells["y"]).square().mean()
        g = torch.autograd.grad(value, mu, create_graph=True)
        rows = [torch.autograd.grad(x, mu, create_graph=True) for x in g]
        T = [torch.autograd.grad(row[s], mu[s], retain_graph=True)[0] for s, row in enumerate(rows)]
        return [torch.stack(x).detach() for x in (g, tuple(torch.stack(row) for row in rows), tuple(T))]

    errors = torch_errors(name, naive)
    assert errors[0] <= 1e-8
    assert errors[2] > 1e-3


def torch_programs() -> dict[str, Callable[[Any, Any, Any], Any]]:
    """By name: a function of x (5, 3), W (3, 3) and b (3,), made of products in ways that networks are."""
    import torch
    from torch.nn import functional
    from torch.utils.checkpoint import checkpoint

    def attention(x: Any, W: Any, b: Any) -> Any:
        q = functional.linear(x, W, b)
        return torch.softmax(q @ q.T, -1) @ (x @ W)

    def in_place(x: Any, W: Any, b: Any) -> Any:
        h = functional.linear(x, W).add_(b).tanh_()
        h = torch.addmm(b, h, W)
        h[:, 0] = 2.0 * h[:, 1]
        return h

    def mapped(x: Any, W: Any, b: Any) -> Any:
        return torch.func.vmap(lambda row: functional.linear(torch.tanh(functional.linear(row, W, b)), W.T))(x)

    return {
        "tied weights": lambda x, W, b: torch.tanh(torch.tanh(x @ W.T + b) @ W) @ W,
        "product of parameters": lambda x, W, b: torch.tanh(x @ (W @ W.T @ torch.diag(b))),
        "repeated operand": lambda x, W, b: torch.einsum("ij,kj->ik", h := torch.tanh(x @ W + b), h),
        "three operands": lambda x, W, b: torch.einsum("ij,jk,k->ik", torch.exp(0.1 * x @ W), W, b),
        "bilinear": lambda x, W, b: functional.bilinear(torch.sin(x @ W), x * b, W[None]),
        "linear in the end": lambda x, W, b: torch.tanh(x @ W) @ b,
        "attention": attention,
        "in place": in_place,
        "branches": lambda x, W, b: (h := torch.tanh(x @ W)) * torch.sin(h @ W) + (h * b) @ W,
        "vmap": mapped,
        "checkpoint": lambda x, W, b: checkpoint(
            lambda h: torch.tanh(torch.tanh(h @ W.T + b) @ W), x.clone().requires_grad_(), use_reentrant=False
        ),
    }


TORCH_PROGRAMS = (
    *("tied weights", "product of parameters", "repeated operand", "three operands", "bilinear", "linear in the end"),
    *("attention", "in place", "branches", "vmap", "checkpoint"),
)


@pytest.mark.parametrize("groups", ["tensor", "one"])
@pytest.mark.parametrize("name", TORCH_PROGRAMS)
def test_third_derivatives_piece_by_piece_are_those_of_the_whole(name: str, groups: str) -> None:
    """Against torch's own three-fold derivative of the loss with respect to mu, to 1e-12."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from inna_torch import summary

    torch.manual_seed(0)
    x, W, b, *direction = (torch.randn(shape, dtype=torch.float64) for shape in ((5, 3), (3, 3), 3, (3, 3), 3))
    programs = torch_programs()
    assert set(TORCH_PROGRAMS) == set(programs)
    group_of = [0, 1] if groups == "tensor" else [0, 0]

    def loss(params: list[Any]) -> Any:
        return programs[name](x, *params).square().mean()

    mu = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(max(group_of) + 1)]
    moved = [p + mu[s] * u for p, u, s in zip((W, b), direction, group_of, strict=True)]
    g = torch.autograd.grad(loss(moved), mu, create_graph=True, materialize_grads=True)
    rows = [torch.autograd.grad(x, mu, create_graph=True, materialize_grads=True) for x in g]
    third = [
        torch.autograd.grad(row[s], mu[s], retain_graph=True, materialize_grads=True)[0] for s, row in enumerate(rows)
    ]
    found = summary(loss, [W, b], direction, groups=groups)
    want = (torch.stack(g), torch.stack([torch.stack(row) for row in rows]), torch.stack(third))
    for a, expected in zip(found, (entry.detach() for entry in want), strict=True):
        assert float((a - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


def test_a_summary_frees_its_memory() -> None:
    """No graph is left behind in a circle of references, which the garbage collector would have to find."""
    import gc

    torch = pytest.importorskip("torch", reason="torch is not installed")
    from inna_torch import summary

    def tensors() -> int:
        return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())

    _, loss, params, direction = torch_net("Linear")
    summary(loss, params, direction)
    gc.collect()
    before = tensors()
    gc.disable()
    try:
        for _ in range(3):
            summary(loss, params, direction)
        assert tensors() == before
    finally:
        gc.enable()


def test_operations_without_derivatives_are_refused_by_name() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from inna_torch import summary

    w = torch.ones(4, dtype=torch.float64, requires_grad=True)
    with pytest.raises(NotImplementedError, match=r"it calls torch\.native_layer_norm"):
        summary(lambda: torch.native_layer_norm(w * w, [4], None, None, 1e-5)[0].sum(), [w], [w.detach()])


def test_a_parameter_that_torch_functions_do_not_see_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from inna_torch import summary

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return 2 * ctx.saved_tensors[0] * grads[0]

    w = torch.ones(4, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="uses a parameter where torch functions do not see it"):
        summary(lambda: Square.apply(w).sum(), [w], [w.detach()])
    # passed as an argument, it is moved like any other
    found = summary(lambda params: Square.apply(params[0]).sum(), [w], [w.detach()])
    assert [float(found.gradient[0]), float(found.hessian[0, 0]), float(found.third[0])] == [8.0, 8.0, 0.0]


def test_a_compiled_model_is_run_as_it_was_written() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from inna_torch import summary

    net, _, params, direction = torch_net("Linear")
    compiled = torch.compile(net, backend="eager")
    x = torch.randn(4, 6, dtype=torch.float64)
    compiled(x).sum().backward()
    found, want = (summary(lambda f=f: f(x).square().mean(), params, direction) for f in (compiled, net))
    assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))
    assert float(want.gradient.abs().min()) > 0


def test_a_summary_changes_nothing() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from inna_torch import summary

    net, loss, params, direction = torch_net("BatchNorm1d")
    loss().backward()
    gradients = [p.grad.clone() for p in params]
    statistics = net[1].running_mean.clone()
    values = [p.detach().clone() for p in params]
    summary(loss, params, direction)
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, params, strict=True))
    assert all(torch.equal(a, p) for a, p in zip(values, params, strict=True))
    assert torch.equal(statistics, net[1].running_mean)


@pytest.mark.parametrize("form", ["module", "dict", "tensors", "named", "groups", "param groups"])
def test_torch_containers(form: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from torch.func import functional_call

    from inna_torch import summary

    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    loss = lambda: net(x).square().mean()  # noqa: E731
    named = dict(net.named_parameters())
    tensors = list(named.values())
    direction = [torch.randn_like(p) for p in tensors]
    want = summary(loss, tensors, direction)
    got = {
        "module": lambda: summary(loss, net, direction),
        "dict": lambda: summary(
            lambda p: functional_call(net, p, (x,)).square().mean(), named, dict(zip(named, direction, strict=True))
        ),
        "tensors": lambda: summary(lambda p: (x @ p[0].T + p[1]).square().mean(), tensors, direction),
        "named": lambda: summary(loss, list(named.items()), direction),
        "groups": lambda: summary(
            lambda p: (x @ p[0][0].T + p[1][0]).square().mean(), [[p] for p in tensors], direction
        ),
        "param groups": lambda: summary(loss, [{"params": [p]} for p in tensors], direction),
    }[form]()
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("groups", ["one", "kind", "layer", ["a", "b", "a", "b", "b", "b"], lambda name: name[0]])
def test_a_coarser_partition_sums_the_finer(groups: Any) -> None:
    """g and H of a group are the sums over its tensors; T is the third derivative of the sum."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from inna_core.newton_summary import partition
    from inna_torch import summary

    weights, direction, x, y = problem("mlp")
    params = {f"{i // 2}.{'wb'[i % 2]}": torch.tensor(w) for i, w in enumerate(weights)}
    loss = torch_loss("mlp", x, y)
    moves = [torch.tensor(u) for u in direction]
    fine = summary(lambda p: loss(list(p.values())), params, moves)
    coarse = summary(lambda p: loss(list(p.values())), params, moves, groups=groups)
    group_of, labels = partition(list(params), [w.ndim for w in weights], groups)
    P = np.zeros((len(labels), len(weights)))
    P[group_of, range(len(weights))] = 1
    assert len(labels) < len(weights)
    assert np.allclose(coarse.gradient, P @ fine.gradient.numpy(), rtol=1e-12)
    assert np.allclose(coarse.hessian, P @ fine.hessian.numpy() @ P.T, rtol=1e-12, atol=1e-14)
    # third derivative along a group, by difference quotients of its own second derivative
    for s in range(len(labels)):
        total = 0.0
        for position, weight in STENCIL:
            moved = {
                k: p + position * STEP * u * (group_of[i] == s)
                for i, ((k, p), u) in enumerate(zip(params.items(), moves, strict=True))
            }
            there = summary(lambda p: loss(list(p.values())), moved, moves, groups=groups, order=2)
            assert not np.any(there.third.numpy())
            total += weight * float(there.hessian[s, s]) / STEP
        assert abs(total - float(coarse.third[s])) <= 1e-8 * float(coarse.third.abs().max())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"order": 1}, ValueError, "Invalid order: 1 (expected 2 or 3)"),
        ({"groups": "rows"}, ValueError, "Invalid groups: 'rows'"),
        ({"groups": ["a"]}, ValueError, "Invalid groups: ['a']"),
        ({"direction": []}, ValueError, "Invalid direction: 0 tensors (expected 2"),
        ({"direction": [0, 1]}, ValueError, "Invalid direction: shape"),
        ({"loss_fn": lambda: 1.0}, ValueError, "Invalid loss_fn: it returned 1.0"),
        ({"loss_fn": "detached"}, ValueError, "Invalid loss_fn: its loss has no gradient"),
        ({"params_or_groups": ["a"]}, TypeError, "Invalid params_or_groups"),
    ],
)
def test_torch_refusals(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from inna_torch import summary

    net = torch.nn.Linear(2, 3)
    params = list(net.parameters())
    good = {"loss_fn": lambda: net(torch.ones(1, 2)).sum(), "params_or_groups": params, "direction": params}
    if changes.get("loss_fn") == "detached":
        changes = {"loss_fn": lambda: net(torch.ones(1, 2)).sum().detach()}
    if changes.get("direction") == [0, 1]:
        changes = {"direction": [params[1], params[0]]}
    with pytest.raises(error) as caught:
        summary(**{**good, **changes})
    assert message in str(caught.value)


# --- JAX

Apply = Callable[[Any, Any], Any]


def jax_layers() -> dict[str, Callable[[Any], tuple[dict[str, Any], Apply, tuple[int, ...]]]]:
    """By name: a function of a random generator that returns weights, the layer, and the shape of its input."""
    import jax
    import jax.numpy as jnp

    nn, flat, images, sequences = jax.nn, (4, 6), (3, 5, 5, 2), (3, 4, 6)

    def weights(rng: Any, **shapes: tuple[int, ...]) -> dict[str, Any]:
        return {name: jnp.asarray(rng.normal(0, 0.5, shape)) for name, shape in shapes.items()}

    def convolution(p: Any, x: Any) -> Any:
        return jax.lax.conv_general_dilated(x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def moments(p: Any, x: Any, axis: Any) -> Any:
        mean, variance = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
        return (x - mean) / jnp.sqrt(variance + 1e-3) * p["scale"] + p["bias"]

    def attention(p: Any, x: Any) -> Any:
        q, k, v = (jnp.einsum("bti,inj->btnj", x, p[name]) for name in "qkv")
        # `jax.nn.dot_product_attention` takes its softmax in float32, whatever it is given
        scores = nn.softmax(jnp.einsum("btnj,bsnj->bnts", q, k), axis=-1)
        return jnp.einsum("bnts,bsnj->btnj", scores, v).reshape(*x.shape[:2], -1) @ p["o"]

    def recurrent(p: Any, x: Any) -> Any:
        def step(h: Any, row: Any) -> Any:
            return (h := jnp.tanh(row @ p["w"] + h @ p["v"])), h

        return jax.lax.scan(step, jnp.zeros((x.shape[0], 5), x.dtype), x.swapaxes(0, 1))[1]

    def pooled(p: Any, x: Any) -> Any:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    activations = {
        name: getattr(nn, name)
        for name in ("relu", "gelu", "silu", "softplus", "softmax", "log_softmax", "elu", "sigmoid", "mish", "selu")
    }
    return {
        "dense": lambda r: (weights(r, w=(6, 5), b=(5,)), lambda p, x: x @ p["w"] + p["b"], flat),
        "convolution": lambda r: (weights(r, w=(3, 3, 2, 3)), convolution, images),
        "max pooling": lambda r: ({}, pooled, images),
        "layer normalisation": lambda r: (weights(r, scale=(6,), bias=(6,)), lambda p, x: moments(p, x, -1), flat),
        "batch normalisation": lambda r: (
            weights(r, scale=(2,), bias=(2,)),
            lambda p, x: moments(p, x, (0, 1, 2)),
            images,
        ),
        "standardize": lambda r: ({}, lambda p, x: nn.standardize(x), flat),
        "attention": lambda r: (
            weights(r, q=(6, 2, 3), k=(6, 2, 3), v=(6, 2, 3), o=(6, 6)),
            attention,
            sequences,
        ),
        "embedding": lambda r: (
            weights(r, table=(7, 6)),
            lambda p, x: x[:, None] * p["table"][jnp.asarray([[0, 3], [6, 0], [2, 2], [5, 1]])],
            flat,
        ),
        "scan": lambda r: (weights(r, w=(6, 5), v=(5, 5)), recurrent, sequences),
        "checkpoint": lambda r: (
            weights(r, w=(6, 5)),
            lambda p, x: jax.checkpoint(lambda w, x: jnp.tanh(x @ w))(p["w"], x),
            flat,
        ),
        **{name: lambda r, f=f: ({}, lambda p, x: f(x), flat) for name, f in activations.items()},
    }


def flax_layers() -> dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]]:
    """By name: a function of flax.linen that returns a module, and the shape of its input."""
    flat, images, sequences = (4, 6), (3, 5, 5, 2), (3, 4, 6)
    return {
        "flax Dense": (lambda nn: nn.Dense(5), flat),
        "flax Conv": (lambda nn: nn.Conv(3, (3, 3)), images),
        "flax LayerNorm": (lambda nn: nn.LayerNorm(epsilon=1e-3), flat),
        "flax RMSNorm": (lambda nn: nn.RMSNorm(), flat),
        "flax GroupNorm": (lambda nn: nn.GroupNorm(num_groups=2), images),
        "flax BatchNorm": (lambda nn: nn.BatchNorm(use_running_average=False), images),
        "flax MultiHeadDotProductAttention": (lambda nn: nn.MultiHeadDotProductAttention(num_heads=2), sequences),
        "flax GRU": (lambda nn: nn.RNN(nn.GRUCell(5, param_dtype="float64")), sequences),
    }


JAX_LAYERS = (
    *("dense", "convolution", "max pooling", "layer normalisation", "batch normalisation", "standardize", "attention"),
    *("embedding", "scan", "checkpoint", "relu", "gelu", "silu", "softplus", "softmax", "log_softmax", "elu"),
    *("sigmoid", "mish", "selu"),
)


def jax_layer(name: str, rng: Any) -> tuple[dict[str, Any], Apply, tuple[int, ...]]:
    import jax
    import jax.numpy as jnp

    if not name.startswith("flax"):
        layers = jax_layers()
        assert set(layers) == set(JAX_LAYERS)
        return layers[name](rng)
    from flax import linen  # pyright: ignore[reportMissingImports]

    make, shape = flax_layers()[name]
    module = make(linen)
    variables = module.init(jax.random.key(0), jnp.ones(shape))
    fixed = {key: value for key, value in variables.items() if key != "params"}
    leaves, treedef = jax.tree.flatten(variables["params"])
    weights = {str(i): jnp.asarray(rng.normal(0, 0.5, leaf.shape)) for i, leaf in enumerate(leaves)}

    def apply(p: Any, x: Any) -> Any:
        params = treedef.unflatten([p[str(i)] for i in range(len(leaves))])
        return module.apply({**fixed, "params": params}, x, mutable=list(fixed))[0]

    return weights, apply, shape


@pytest.fixture
def jax_on_cpu() -> Iterator[None]:
    """On GPUs JAX rounds the derivatives of max pooling in float64 to single precision, with a warning."""
    skip_without("jax")
    import jax

    with jax.default_device(jax.devices("cpu")[0]):
        yield


@pytest.mark.usefixtures("jax_on_cpu")
@pytest.mark.parametrize("unrolled", [0, 32])
@pytest.mark.parametrize("name", [*JAX_LAYERS, *flax_layers()])
def test_jax_layers_against_difference_quotients(name: str, unrolled: int) -> None:
    """Behind a dense layer, in float64, entry by entry and in the loop: relative to the largest entry, to 1e-8."""
    skip_without("jax", "optax", *(["flax"] if name.startswith("flax") else []))
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from inna_optax import newton_summary

    module = importlib.import_module(newton_summary.__module__)
    rng = np.random.default_rng(1)
    weights, layer, shape = jax_layer(name, rng)
    first = jnp.asarray(rng.normal(0, 0.5, (shape[-1], shape[-1])))
    params = {"first": first, **weights}
    direction = {key: jnp.asarray(rng.normal(0, 0.5, p.shape)) for key, p in params.items()}
    x = jnp.asarray(rng.normal(0, 1, shape))
    y = jnp.asarray(rng.normal(0, 1, jax.eval_shape(lambda: layer(weights, x)).shape))

    def loss(p: Any) -> Any:
        return jnp.mean((jnp.tanh(layer({key: p[key] for key in weights}, x @ p["first"])) - y) ** 2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "UNROLLED", unrolled)
        both = jax.jit(lambda p: (loss(p), module.summary(loss, p, direction)))

        def evaluate(group: int, by: float) -> tuple[float, Any]:
            # a dict's leaves, and so the groups, come in the order of their names
            moved = {key: params[key] + by * direction[key] * (s == group) for s, key in enumerate(sorted(params))}
            value, found = both(moved)
            return float(value), [np.asarray(a) for a in found]

        assert max(largest_errors(evaluate, len(params))) <= 1e-8


# --- host against host


def torch_loss(network: str, x: np.ndarray, y: np.ndarray) -> Callable[[list[Any]], Any]:
    import torch

    inputs, targets = torch.tensor(x), torch.tensor(y)

    def loss(p: list[Any]) -> Any:
        if network == "mlp":
            out = torch.tanh(torch.tanh(inputs @ p[0] + p[1]) @ p[2] + p[3]) @ p[4] + p[5]
        else:
            images = torch.nn.functional.conv2d(inputs.permute(0, 3, 1, 2), p[0].permute(3, 2, 0, 1), p[1])
            out = torch.tanh(images).permute(0, 2, 3, 1).flatten(1) @ p[2] + p[3]
        return -(targets * torch.log_softmax(out, -1)).sum(-1).mean()

    return loss


def jax_loss(network: str, x: np.ndarray, y: np.ndarray) -> Callable[[list[Any]], Any]:
    import jax
    import jax.numpy as jnp

    def loss(p: list[Any]) -> Any:
        if network == "mlp":
            out = jnp.tanh(jnp.tanh(x @ p[0] + p[1]) @ p[2] + p[3]) @ p[4] + p[5]
        else:
            images = jax.lax.conv_general_dilated(
                jnp.asarray(x), p[0], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            out = jnp.tanh(images + p[1]).reshape(len(x), -1) @ p[2] + p[3]
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(out), axis=-1))

    return loss


def torch_summary(network: str, order: int = 3) -> list[np.ndarray]:
    """Return torch's summary of order 3, of which order 2 has no third derivatives."""
    import torch

    from inna_torch import summary

    weights, direction, x, y = problem(network)
    found = summary(torch_loss(network, x, y), [torch.tensor(w) for w in weights], [torch.tensor(u) for u in direction])
    gradient, hessian, third = (a.numpy() for a in found)
    return [gradient, hessian, third if order == 3 else 0 * third]


def jax_summary(network: str, unrolled: int, jit: bool, order: int) -> list[np.ndarray]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from inna_optax import newton_summary

    module = importlib.import_module(newton_summary.__module__)
    weights, direction, x, y = problem(network)
    params, moves = [jnp.asarray(w) for w in weights], [jnp.asarray(u) for u in direction]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "UNROLLED", unrolled)
        compute = lambda p, u: module.summary(jax_loss(network, x, y), p, u, order=order)  # noqa: E731
        found = (jax.jit(compute) if jit else compute)(params, moves)
    return [np.asarray(a) for a in found]


def closeness(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    return max(float(np.max(np.abs(a - b)) / (np.max(np.abs(b)) + 1e-12)) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("unrolled", [0, 32])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("order", [2, 3])
def test_jax_agrees_with_torch(network: str, unrolled: int, jit: bool, order: int) -> None:
    skip_without("torch", "jax", "optax")
    assert closeness(jax_summary(network, unrolled, jit, order), torch_summary(network, order)) <= 1e-10


@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", [2, 3])
def test_keras_agrees_with_torch(network: str, backend: str, order: int, workers: Any) -> None:
    skip_without("torch", "keras", BACKENDS[backend])
    worker = workers({"KERAS_BACKEND": backend})
    got = worker.call("conformance_tests.newton.keras_scenarios:network_summary", network, order)
    assert closeness(got, torch_summary(network, order)) <= KERAS_PRECISION[backend]


@pytest.mark.parametrize("backend", BACKENDS)
def test_where_keras_has_no_float64(backend: str, workers: Any) -> None:
    """The reason for `KERAS_PRECISION`, with floatx and the dtype policy at float64: no setting helps."""
    skip_without("keras", BACKENDS[backend])
    dtype = workers({"KERAS_BACKEND": backend}).call("conformance_tests.newton.keras_scenarios:promoted")
    assert dtype == ("float64" if backend == "tensorflow" else "float32")


KERAS_LAYERS = (
    *("Dense", "Conv1D", "Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "SimpleRNN", "Embedding"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "LayerNormalization", "BatchNormalization"),
    *("relu", "gelu", "silu", "softplus", "softmax"),
)


@pytest.mark.parametrize("layer", KERAS_LAYERS)
def test_keras_layers_against_difference_quotients(layer: str, workers: Any) -> None:
    """On TensorFlow, which computes in float64: relative to the largest entry of g, H and T, to 1e-8."""
    skip_without("keras", "tensorflow")
    errors = workers({"KERAS_BACKEND": "tensorflow"}).call(
        "conformance_tests.newton.keras_scenarios:layer_errors", layer
    )
    assert max(errors) <= 1e-8


@pytest.mark.parametrize("layer", KERAS_LAYERS)
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras_layers_agree_on_all_backends(backend: str, layer: str, workers: Any) -> None:
    skip_without("keras", "tensorflow", backend)
    if (backend, layer) == ("jax", "SimpleRNN"):
        pytest.skip("Keras' SimpleRNN cannot be called in float64 on JAX: its tanh returns float32 inside a scan")
    name = "conformance_tests.newton.keras_scenarios:layer_summary"
    got, want = (workers({"KERAS_BACKEND": b}).call(name, layer) for b in (backend, "tensorflow"))
    assert closeness(got, want) <= KERAS_PRECISION[backend]


@pytest.mark.parametrize("backend", BACKENDS)
def test_keras_refuses_other_normalisations_by_name(backend: str, workers: Any) -> None:
    skip_without("keras", BACKENDS[backend])
    message = workers({"KERAS_BACKEND": backend}).call("conformance_tests.newton.keras_scenarios:refused")
    # Keras puts its own words around it
    assert "Invalid loss_fn: it calls GroupNormalization" in message


@pytest.mark.parametrize("backend", BACKENDS)
def test_keras_moving_averages(backend: str, workers: Any) -> None:
    skip_without("keras", BACKENDS[backend])
    assert workers({"KERAS_BACKEND": backend}).call("conformance_tests.newton.keras_scenarios:moving_averages_stay")
