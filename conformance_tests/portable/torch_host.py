"""The network in torch."""

import numpy as np
import torch
from torch.nn import functional

import inna_torch
from conformance_tests.portable import network
from conformance_tests.portable.network import CHANNELS, EPSILON, VOCABULARY, WIDTH, Arrays, Leg


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, CHANNELS)
        self.conv = torch.nn.Conv1d(CHANNELS, CHANNELS, WIDTH)
        self.norm = torch.nn.LayerNorm(CHANNELS, eps=EPSILON)
        self.dense = torch.nn.Linear(CHANNELS, CHANNELS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        u = self.norm(self.conv(self.embedding(tokens).transpose(1, 2)).transpose(1, 2))
        return self.dense((u * torch.rsqrt(1 + u * u)).mean(1))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return views of the parameters under the names and in the layouts of Keras."""
        return {
            "embedding/embeddings": self.embedding.weight.detach(),
            "conv/kernel": self.conv.weight.detach().permute(2, 1, 0),
            "conv/bias": self.conv.bias.detach(),  # type: ignore[union-attr]
            "norm/gamma": self.norm.weight.detach(),
            "norm/beta": self.norm.bias.detach(),
            "dense/kernel": self.dense.weight.detach().T,
            "dense/bias": self.dense.bias.detach(),
        }


def run(leg: Leg) -> Arrays:
    """Run a part of a training; return the parameters at its end."""
    training = leg.training
    model = Network().double()
    for name, value in network.initial_parameters().items():
        model.tensors()[name].copy_(torch.from_numpy(value))
    optimizer = getattr(inna_torch, training.algorithm)(
        model.parameters(), lr=training.lr, weight_decay=training.weight_decay, **training.hyper
    )
    if leg.load:
        loaded = inna_torch.load_state(leg.load, optimizer, model, layout=network.layout(leg.source, "torch"))
        assert loaded.step == leg.first
    for k in range(leg.first, leg.last):
        tokens, targets = map(torch.from_numpy, network.batch(k))
        optimizer.param_groups[0]["lr"] = training.lr_of(k)
        optimizer.zero_grad()
        functional.mse_loss(model(tokens), targets).backward()
        optimizer.step()
    if leg.save:
        inna_torch.save_state(leg.save, optimizer, model, step=leg.last)
    return {name: np.array(x.numpy()) for name, x in model.tensors().items()}
