"""INNA in torch: autograd, and torch's own scheduler for the step size."""

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.quickstart.problem import DECAY, LR, Problem
from benchmarks.quickstart.recording import Recorder, Trained, UnavailableError
from inna_core.schedules import PowerDecay
from inna_torch import INNA


def weights_of(model: nn.Module) -> list[np.ndarray]:
    # nn.Linear keeps one row per unit, the problem one column
    return [p.numpy(force=True).T for p in model.parameters()]


def train(option: str, problem: Problem, recorder: Recorder) -> Trained:
    """Train on a device.

    Args:
        option: the device, as torch names it.
        problem: data, initial weights and batches.
        recorder: is told every step and epoch.
    """
    device = torch.device(option)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("torch finds no CUDA device")
    x, y, x_test, batches = (
        torch.tensor(array, device=device) for array in (problem.x, problem.y, problem.x_test, problem.batches)
    )
    model = nn.Sequential(nn.Linear(*problem.w1.shape), nn.SiLU(), nn.Linear(*problem.w2.shape)).to(device).double()
    with torch.no_grad():
        for p, w in zip(model.parameters(), problem.weights, strict=True):
            p.copy_(torch.tensor(w.T))

    optimizer = INNA(model.parameters(), lr=LR)
    scheduler = LambdaLR(optimizer, PowerDecay(1.0, DECAY))
    loss_of = nn.CrossEntropyLoss()
    for epoch in batches:
        total = torch.zeros((), dtype=torch.float64, device=device)
        for batch in epoch:
            optimizer.zero_grad()
            loss = loss_of(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.detach()
            recorder.step(lambda: weights_of(model))
        recorder.epoch(total / len(epoch))
    with torch.no_grad():
        return Trained(str(x.device), model(x_test).numpy(force=True))
