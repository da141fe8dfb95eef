"""Autograd through a step, torch.compile of a step, and CUDA graphs."""

import copy
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import inna_torch  # noqa: E402
from conformance_tests.tiers import nightly_but  # noqa: E402
from conformance_tests.torch_host.rows import COMPILES, OPTIMIZERS, counted_calls, difference, parameters, set_gradients  # noqa: E402

EACH = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


@EACH
def test_gradients_flow_through_a_differentiable_step(optimizer: Any) -> None:
    """Against finite differences, in the parameters, the gradient and the learning rate, over three steps."""

    def trained(theta: Any, g: Any, lr: Any) -> Any:
        p = theta.clone()
        instance = optimizer([p], lr=0.05, differentiable=True, weight_decay=0.1)
        instance.param_groups[0]["lr"] = lr
        for k in range(3):
            p.grad = g * (k + 1)
            instance.step()
        return p

    generator = torch.Generator().manual_seed(0)
    theta, g = (torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    lr = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings():
        # p is no leaf here; torch warns when the .grad of such a tensor is read
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        assert torch.autograd.gradcheck(trained, (theta, g, lr))


@EACH
def test_compiled_steps_equal_plain_ones_without_recompiling(optimizer: Any) -> None:
    """One graph, traced once, while the lr changes in its tensor."""
    import torch._dynamo

    torch._dynamo.reset()
    compiled_graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled_graphs.append(graph)
        return graph.forward

    ours, plain = parameters(torch.float32), parameters(torch.float32)
    a, b = optimizer(ours, lr=torch.tensor(0.05)), optimizer(plain, lr=0.05, foreach=False)
    step = torch.compile(a.step, backend=backend)
    counts = []
    for k in range(6):
        set_gradients(ours, k)
        set_gradients(plain, k)
        a.param_groups[0]["lr"].fill_(0.05 / (k + 1))
        b.param_groups[0]["lr"] = 0.05 / (k + 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            step()
        b.step()
        counts.append(len(compiled_graphs))
        assert difference(ours, plain) < 1e-6
    assert counts == [1] * 6


@COMPILES
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own imports
@pytest.mark.parametrize("dtype", nightly_but(["bfloat16"], ["float32", "bfloat16", "float16"]))
@EACH
def test_steps_through_inductor_equal_plain_ones(optimizer: Any, dtype: str) -> None:
    """Compiled as users compile, down to machine code, which keeps the roundings that compensated sums need."""
    import torch._dynamo

    torch._dynamo.reset()
    ours, plain = (parameters(getattr(torch, dtype)) for _ in range(2))
    a, b = optimizer(ours, lr=torch.tensor(0.05)), optimizer(plain, lr=0.05, foreach=False)
    step = torch.compile(a.step)

    def held(instance: Any, p: Any) -> Any:
        """Return parameter and compensation, together more digits than either holds."""
        return p.detach().double() + instance.state[p].get("compensation", torch.zeros_like(p)).double()

    for k in range(3):
        set_gradients(ours, k)
        set_gradients(plain, k)
        step()
        b.step()
        # a parameter and its compensation lose at most half an eps of the compensation, half an eps of the parameter
        bound = 1e-6 if dtype == "float32" else 4 * (k + 1) * torch.finfo(getattr(torch, dtype)).eps ** 2
        assert difference([held(a, p) for p in ours], [held(b, p) for p in plain]) < bound


def test_a_fast_path_goes_on_where_a_compiled_one_stopped() -> None:
    import torch._dynamo

    torch._dynamo.reset()
    ours, plain = parameters(torch.float32), parameters(torch.float32)
    a, b = inna_torch.INNA(ours, lr=0.05), inna_torch.INNA(plain, lr=0.05, foreach=False)
    step = torch.compile(a.step, backend="eager")
    for k, take in enumerate([a.step, step, step, a.step, step, a.step]):
        set_gradients(ours, k)
        set_gradients(plain, k)
        with warnings.catch_warnings(), counted_calls() as kernel:
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            take()
        assert kernel.call_count == (0 if take is step else 1)
        b.step()
        assert difference(ours, plain) < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("lr_in_tensor", [True, False])
@EACH
def test_a_captured_step_is_replayed(optimizer: Any, lr_in_tensor: bool, momentum: float | None) -> None:
    """A CUDA graph of a capturable step makes the steps that follow, also with other gradients and step sizes.

    Reads of the state in between change nothing.
    """
    ours, plain = ([p.detach().cuda().requires_grad_() for p in parameters(torch.float32)] for _ in range(2))
    lr = torch.tensor(0.05, device="cuda")
    a = optimizer(ours, lr=lr if lr_in_tensor else 0.05, momentum=momentum, capturable=True)
    b = optimizer(plain, lr=0.05, momentum=momentum)

    def give_gradients(k: int) -> None:
        for i, (p, q) in enumerate(zip(ours, plain, strict=True)):
            g = torch.full_like(p, 0.1 * (i + 1)) * (-1) ** k + p.detach()
            p.grad = g if p.grad is None else p.grad.copy_(g)  # a graph reads the memory that it was recorded with
            q.grad = g.clone()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # the first steps make the state, which no graph can
        for k in range(2):
            give_gradients(k)
            a.step()
            b.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # records, and changes nothing
        a.step()
    for k in range(2, 6):
        if lr_in_tensor:
            lr.fill_(0.05 / k)
            b.param_groups[0]["lr"] = 0.05 / k
        a.state_dict()
        give_gradients(k)
        graph.replay()
        b.step()
        assert difference(ours, plain) < 2e-6, k


TRACED: dict[str, tuple[dict[str, Any], int]] = {
    "lr in a tensor": ({"lr": torch.tensor(0.05)}, 1),
    "float lr": ({"lr": 0.05}, 2),
    "compiled": ({"lr": 0.05, "compiled": True}, 2),
    "published decay": ({"lr": 0.05, "weight_decay": 0.1, "published_decay": True}, 2),
    "maximize": ({"lr": 0.05, "maximize": True}, 2),
}


def rows_of_graphs() -> list[Any]:
    """Return (row, whether the bare step must be one graph), nightly but this; steps as users call them for a float."""
    pairs = [(row, fullgraph) for row in TRACED for fullgraph in (False, True)]
    kept = [(row, fullgraph) for row, fullgraph in pairs if fullgraph or row == "float lr"]
    return [pytest.param(*pair, marks=[] if pair in kept else [pytest.mark.nightly]) for pair in pairs]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Profiler record function")
@pytest.mark.parametrize("dtype", nightly_but(["float32"], ["float32", "bfloat16"]))
@pytest.mark.parametrize(("row", "fullgraph"), rows_of_graphs())
@EACH
def test_traced_steps_stay_in_one_graph_while_lr_changes(optimizer: Any, row: str, fullgraph: bool, dtype: str) -> None:
    """A float that changes is compiled once more, as a symbol; it then stays compiled."""
    flags, most_graphs = TRACED[row]
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    ours, plain = (parameters(getattr(torch, dtype)) for _ in range(2))
    a = optimizer(ours, **{**flags, "lr": copy.copy(flags["lr"])})
    b = optimizer(plain, **{**flags, "lr": 0.05, "compiled": False}, foreach=False)

    def step() -> None:
        # as torch's own tests: the decorators of `step` break the graph on purpose
        with torch.no_grad():
            optimizer.step.__wrapped__.__wrapped__(a)

    compiled = torch.compile(step if fullgraph else a.step, backend=backend, fullgraph=fullgraph)
    for k in range(5):
        lr = 0.05 / (k + 1)
        if isinstance(flags["lr"], float):
            a.param_groups[0]["lr"] = lr
        else:
            a.param_groups[0]["lr"].fill_(lr)
        b.param_groups[0]["lr"] = lr
        set_gradients(ours, k)
        set_gradients(plain, k)
        compiled()
        b.step()
        assert 1 <= len(graphs) <= most_graphs
    assert difference(ours, plain) < 1e-6
    assert a.param_groups[0]["capturable"] is False
    a.step()  # the group is as it was
