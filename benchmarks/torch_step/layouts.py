"""Parameters of the networks whose steps are timed, as shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The parameters of a model.

    Attributes:
        shapes: one a parameter.
        two_groups: whether one-dimensional parameters form a second group, without weight decay.
        sharded: whether FSDP2 holds the parameters, as DTensors on the single rank of a gloo process group.
    """

    shapes: Sequence[Shape]
    two_groups: bool = False
    sharded: bool = False


@dataclass(frozen=True)
class Setting:
    """Where and in which precision steps are timed.

    Attributes:
        device: of parameters and gradients, "cpu" or "cuda".
        dtype: of parameters and gradients.
        threads: that torch may use on a CPU.
    """

    device: str
    dtype: torch.dtype
    threads: int


def linear(outputs: int, inputs: int) -> list[Shape]:
    return [(outputs, inputs), (outputs,)]


def norm(width: int) -> list[Shape]:
    return [(width,), (width,)]


def conv(outputs: int, inputs: int, size: int) -> Shape:
    return (outputs, inputs, size, size)


def transformer(width: int, blocks: int) -> list[Shape]:
    block = [
        *norm(width),
        *linear(3 * width, width),
        *linear(width, width),
        *norm(width),
        *linear(4 * width, width),
        *linear(width, 4 * width),
    ]
    return [*block * blocks, *norm(width)]


def resnet50() -> list[Shape]:
    """Return the shapes of ResNet-50 (He et al., 2015) for 1000 classes: 161 tensors, 25,557,032 parameters."""
    shapes = [conv(64, 3, 7), *norm(64)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        outputs = 4 * width
        for block in range(blocks):
            shapes += [conv(width, inputs, 1), *norm(width), conv(width, width, 3), *norm(width)]
            shapes += [conv(outputs, width, 1), *norm(outputs)]
            if block == 0:
                shapes += [conv(outputs, inputs, 1), *norm(outputs)]
            inputs = outputs
    return [*shapes, *linear(1000, inputs)]


def vit_s() -> list[Shape]:
    """Return the shapes of ViT-S/16 (224 x 224 images, 1000 classes): 152 tensors, 22,050,664 parameters."""
    width, patches = 384, 14 * 14
    tokens = [(1, 1, width), (1, patches + 1, width)]
    return [*tokens, conv(width, 3, 16), (width,), *transformer(width, 12), *linear(1000, width)]


LENET5: list[Shape] = [
    *[conv(6, 1, 5), (6,), conv(16, 6, 5), (16,)],
    *[*linear(120, 400), *linear(84, 120), *linear(10, 84)],
]

LAYOUTS: dict[str, Layout] = {
    "perceptron": Layout([*linear(64, 64), *linear(10, 64)]),
    "lenet5": Layout(LENET5),
    "resnet50": Layout(resnet50()),
    "resnet50-groups": Layout(resnet50(), two_groups=True),
    "vit-s": Layout(vit_s()),
    "vit-s-groups": Layout(vit_s(), two_groups=True),
    "gpt2": Layout([(8000, 384), (1024, 384), *transformer(384, 11)]),
    "one": Layout([(20_000_000,)]),
    "small": Layout([(64, 64)] * 500),
    "small200": Layout([(64, 64)] * 200),
    "fsdp2": Layout(linear(64, 64) * 75, sharded=True),
}


def param_groups(layout: Layout, setting: Setting) -> list[dict[str, Any]]:
    """Return random parameters with random gradients, as param groups."""
    params = sharded_parameters(layout.shapes, setting.dtype) if layout.sharded else []
    for shape in layout.shapes if not layout.sharded else ():
        params.append(torch.nn.Parameter(torch.randn(shape, device=setting.device, dtype=setting.dtype)))
        params[-1].grad = torch.randn_like(params[-1])
    if not layout.two_groups:
        return [{"params": params}]
    return [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]


def sharded_parameters(shapes: Sequence[Shape], dtype: torch.dtype) -> list[torch.nn.Parameter]:
    """Return parameters, with gradients, of a module that FSDP2 has sharded over one gloo rank."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    module = torch.nn.Module()
    for i, shape in enumerate(shapes):
        module.register_parameter(f"p{i}", torch.nn.Parameter(torch.randn(shape, dtype=dtype)))
    fully_shard(module, mesh=mesh)
    params = list(module.parameters())
    for p in params:
        assert isinstance(p, DTensor)
        p.grad = DTensor.from_local(torch.randn_like(p.to_local()), mesh, p.placements)
    return params
