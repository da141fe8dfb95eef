"""Networks with every layer of torch, programs made of products, and a small network to train."""

from collections.abc import Callable
from typing import Any

import pytest

from conformance_tests.newton.networks import problem
from inna_core import INNA, INNAprop, Momentum

ALGORITHMS = {"Momentum": Momentum(), "INNA": INNA(), "INNAprop": INNAprop(0.5, 0.1)}


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


def torch_model() -> tuple[Any, Any]:
    import torch

    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()
    _, _, x, y = problem("mlp")
    inputs, targets = torch.tensor(x), torch.tensor(y)
    return model, lambda: -(targets * torch.log_softmax(model(inputs), -1)).sum(-1).mean()


def torch_steps(optimizer: Any, loss: Any, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses
