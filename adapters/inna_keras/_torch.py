"""In-place steps of many variables at once for Keras on torch, by the paths of `inna_torch`.

Keras' own torch optimizers do the same with multi-tensor calls.
"""

from typing import Any

import torch

from inna_core.algorithm import slot_names
from inna_torch._batch import Batch
from inna_torch._hyperparameters import Hyperparameters
from inna_torch._tensors import Tensors, same_dense_layout
from inna_torch.paths import select


def step(
    algorithm: Any, columns: list[Tensors], steps: int, lr: float, weight_decay: float, *, published: bool
) -> None:
    """Update parameters and state in place.

    Args:
        algorithm: of `inna_core`.
        columns: parameters, gradients, and the fields of the state other than the step; tensors of one dtype and
            device, float32 or float64.
        steps: number of steps made before.
        lr: step size.
        weight_decay: rate of the decay.
        published: whether the decay acts on the velocity too.
    """
    params, grads, *slots = columns
    batch = Batch(
        params,
        grads,
        dict(zip(slot_names(algorithm), slots, strict=True)),
        states=[{} for _ in params],  # Keras' own variables, which hold true velocities
        step=float(steps),
        counters=[],
        dtype=params[0].dtype,
        device=params[0].device,
        native=True,
        dense=all(same_dense_layout(x, row[0]) for row in zip(*columns, strict=True) for x in row),
    )
    select.plan(batch, Hyperparameters(algorithm, lr, weight_decay, published_decay=published), set())()


def is_plain(theta: Any, grad: Any, slots: list[Any]) -> bool:
    """Return whether multi-tensor calls may mix these tensors: one wide dtype and device, no subclass, none negated."""
    return theta.dtype in (torch.float32, torch.float64) and all(
        type(x) in (torch.Tensor, torch.nn.Parameter)
        and x.dtype == theta.dtype
        and x.device == theta.device
        and x.layout == torch.strided
        and not x.is_neg()
        for x in (theta, grad, *slots)
    )
