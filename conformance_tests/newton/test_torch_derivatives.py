"""Summaries in torch: against difference quotients for every layer, torch's own derivatives, and refusals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conformance_tests.distances import largest
from conformance_tests.newton.networks import STENCIL, STEP, largest_errors, problem, torch_loss
from conformance_tests.newton.torch_networks import TORCH_PROGRAMS, torch_layers, torch_net, torch_programs
from conformance_tests.tiers import nightly_but


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


ONE_OF_EACH_KIND = (
    *("Linear", "Conv2d", "LayerNorm", "RMSNorm", "BatchNorm1d", "BatchNorm1d, eval", "InstanceNorm2d", "GroupNorm"),
    *(
        "LocalResponseNorm",
        "MultiheadAttention",
        "scaled_dot_product_attention",
        "LSTM",
        "MaxPool2d",
        "Softmax",
        "ReLU",
    ),
)
"""Of the layers: what our replacements and refusals tell apart. The others are nightly."""


@pytest.mark.parametrize("name", nightly_but(ONE_OF_EACH_KIND, torch_layers()))
def test_layers_agree_with_difference_quotients(name: str) -> None:
    """Relative to the largest entry of g, H and T, to 1e-8."""
    pytest.importorskip("torch", reason="torch is not installed")
    from inna_torch import summary

    assert largest(torch_errors(name, summary)) <= 1e-8


@pytest.mark.parametrize("name", ["LayerNorm", "BatchNorm1d", "InstanceNorm2d"])
def test_torchs_own_normalisations_have_wrong_third_derivatives(name: str) -> None:
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


@pytest.mark.parametrize("groups", ["tensor", "one"])
@pytest.mark.parametrize("name", TORCH_PROGRAMS)
def test_third_derivatives_by_pieces_are_those_of_the_whole_loss(name: str, groups: str) -> None:
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
    with pytest.raises(RuntimeError, match="uses a parameter outside of torch functions"):
        summary(lambda: Square.apply(w).sum(), [w], [w.detach()])
    # passed as an argument, it is moved like any other
    found = summary(lambda params: Square.apply(params[0]).sum(), [w], [w.detach()])
    assert [float(found.gradient[0]), float(found.hessian[0, 0]), float(found.third[0])] == [8.0, 8.0, 0.0]


def test_a_compiled_model_is_run_eagerly() -> None:
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
def test_containers_of_parameters_agree(form: str) -> None:
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
    from inna_core.newton import partition
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
    np.testing.assert_allclose(coarse.gradient, P @ fine.gradient.numpy(), rtol=1e-12)
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
def test_bad_arguments_are_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
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
