"""All of CIFAR-10, with augmentation on the device that trains.

Images stay bytes until they are used. A GPU computes in bfloat16 under autocast: parameters, gradients, the optimizer's
state and batch normalization's statistics are float32. A CPU computes in float32.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad

from benchmarks.training import data
from benchmarks.training.tasks import Split

TRAIN, VALIDATION, TEST = 45_000, 5_000, 10_000
"""How many images; the last 5,000 for training validate."""
BATCH = 256
MARGIN = 4
"""Pixels by which an image may be shifted to each side."""
PIECE = 500

Tensor = torch.Tensor


def image_bytes(images: np.ndarray, labels: np.ndarray) -> Split:
    x = torch.tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    return x, torch.tensor(labels.astype(np.int64))


@cache
def fit(samples: int = TRAIN) -> tuple[Split, Split]:
    """Return the first training images and the last 5,000, for validation; with fewer, the fifth after the first.

    They are kept, since several networks train on them in minutes, and the JPEG files take seconds to read.
    """
    held_out = min(VALIDATION, max(1, samples // 5))
    images = data.cifar10(TRAIN + VALIDATION if samples == TRAIN else samples + held_out, 1)
    x, y = images.x_train, images.y_train
    return image_bytes(x[:samples], y[:samples]), image_bytes(x[-held_out:], y[-held_out:])


def test() -> Split:
    images = data.cifar10(1, TEST)
    return image_bytes(images.x_test, images.y_test)


def augmented(x: Tensor) -> Tensor:
    """Return images cropped at random from themselves with a margin of zeros, half of them mirrored."""
    n, _, height, width = x.shape
    device = x.device
    rows = torch.randint(2 * MARGIN + 1, (n, 1), device=device) + torch.arange(height, device=device)
    columns = torch.randint(2 * MARGIN + 1, (n, 1), device=device) + torch.arange(width, device=device)
    mirrored = torch.rand((n, 1), device=device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    images = torch.arange(n, device=device)[:, None, None]
    channels_last = pad(x, (MARGIN,) * 4).permute(0, 2, 3, 1)
    return channels_last[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def autocast(on: torch.device) -> AbstractContextManager[Any]:
    """Return bfloat16 autocast on a GPU, and a context that does nothing elsewhere."""
    return torch.autocast("cuda", torch.bfloat16) if on.type == "cuda" else nullcontext()


def logits(model: torch.nn.Module, x: Tensor) -> Tensor:
    """Return a model's outputs on images as bytes, which are augmented if it trains."""
    x = x.float() / 127.5 - 1
    if model.training:
        x = augmented(x)
    with autocast(x.device):
        return model(x).float()


def loss(model: torch.nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(logits(model, x), y)


def accuracy(model: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the percentage of right answers, computed in pieces that fit into memory."""
    pieces = zip(x.split(PIECE), y.split(PIECE), strict=True)
    return 100 * sum(int((logits(model, a).argmax(1) == b).sum()) for a, b in pieces) / len(x)
