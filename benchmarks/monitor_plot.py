"""Train a small network with INNA by gradient descent on all samples, and plot what a monitor says.

    python -m benchmarks.monitor_plot docs/figures/monitor.png

The learning rate is constant, and the sharpness rises to where the steps are barely stable: the edge of stability.
"""

import argparse

import torch

import inna_torch
from inna_core.monitor import plot

LR, MOMENTUM, STEPS = 0.02, 0.9, 3000


def main(path: str) -> None:
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64)[:, None]
    y = torch.sin(6 * x) + 0.3 * torch.sign(x)
    model = torch.nn.Sequential(
        torch.nn.Linear(1, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)
    )
    optimizer = inna_torch.INNA(model.parameters(), lr=LR, momentum=MOMENTUM)

    def loss() -> torch.Tensor:
        return torch.nn.functional.mse_loss(model(x), y)

    with inna_torch.Monitor(optimizer, model, loss, every=10, sharpness_every=30) as monitor:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    plot(monitor.history).savefig(path, dpi=100)
    ratios = [s.stability_ratio for s in monitor.history if s.stability_ratio == s.stability_ratio]
    print(f"stability ratio: first {ratios[0]:.2f}, largest {max(ratios):.2f}, last {ratios[-1]:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="of the picture, with the ending of its format")
    main(parser.parse_args().path)
