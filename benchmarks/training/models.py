"""The networks of the tasks."""

from itertools import pairwise

import torch
from torch import nn

Tensor = torch.Tensor


def perceptron(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return a multi-layer perceptron."""
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), activation()]
    return nn.Sequential(*layers[:-1])


def lenet() -> nn.Sequential:
    """Return LeNet-5 with ReLU and max pooling, 61,706 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def small_cnn() -> nn.Sequential:
    """Return two 3 x 3 convolutions and one hidden layer, for 28 x 28 images, 52,138 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def network_in_network(width: int, dropout: float = 0.0) -> nn.Sequential:
    """Return Network-in-Network for 32 x 32 images, as Lin et al. (2014) but with batch normalization.

    Args:
        width: channels of the first layer; 192 in the paper, which has 160/192 and 96/192 of it in the others.
        dropout: after each of the two pools; 0.5 in the paper, and 0 leaves the layers out.
    """
    a, b = width * 160 // 192, width * 96 // 192

    def block(n: int, *channels: int, kernel: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for m in channels:
            layers += [nn.Conv2d(n, m, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(m), nn.ReLU()]
            n, kernel = m, 1
        return layers

    drop = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(
        *(*block(3, width, a, b, kernel=5), nn.MaxPool2d(3, 2, padding=1), *drop),
        *(*block(b, width, width, width, kernel=5), nn.AvgPool2d(3, 2, padding=1), *drop),
        *(*block(width, width, width, kernel=3), nn.Conv2d(width, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a path that is the identity, or a 1 x 1 convolution where the shape changes."""

    def __init__(self, n: int, m: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(n, m, 3, stride, padding=1, bias=False), nn.BatchNorm2d(m), nn.ReLU()),
            *(nn.Conv2d(m, m, 3, padding=1, bias=False), nn.BatchNorm2d(m)),
        )
        changes = stride != 1 or n != m
        projection = (nn.Conv2d(n, m, 1, stride, bias=False), nn.BatchNorm2d(m)) if changes else ()
        self.shortcut = nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        return (self.convolutions(x) + self.shortcut(x)).relu()


def resnet18(width: int = 64) -> nn.Sequential:
    """Return ResNet-18 for 32 x 32 images: a 3 x 3 stem without a pool (He et al. 2016), 11,173,962 parameters.

    Args:
        width: channels of the first stage; each of the next three has twice as many.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    n = width
    for stage in range(4):
        m = width * 2**stage
        layers += [Residual(n, m, 2 if stage else 1), Residual(m, m, 1)]
        n = m
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, 10))


class Block(nn.Module):
    """Causal self-attention and a perceptron, each after a layer normalization and beside a residual path."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.before_attention(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.before_mlp(x))


class GPT(nn.Module):
    """A character-level transformer decoder; the head shares the embedding's weights, as GPT-2's."""

    def __init__(self, vocabulary: int, context: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        self.apply(self._init)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        return self.head(self.norm(self.blocks(self.tokens(x) + self.positions(positions))))


class BurgersSolution(nn.Module):
    """u(t, x) = -sin(pi x) + t (1 - x^2) N(t, x): initial and boundary values hold whatever the network N is."""

    def __init__(self) -> None:
        super().__init__()
        self.net = perceptron(2, 24, 24, 24, 1, activation=nn.Tanh)

    def forward(self, points: Tensor) -> Tensor:
        t, x = points.unbind(1)
        return -torch.sin(torch.pi * x) + t * (1 - x.square()) * self.net(points).squeeze(1)
