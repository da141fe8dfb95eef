"""The benchmark of torch steps has the real networks, correct published loops, and a command that runs."""

# ruff: noqa: E402 (the imports follow the checks that they can succeed)

import json
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("benchmarks", reason="the benchmarks are part of the checkout, which is not on the path")

import inna_torch
from benchmarks.torch_step import __main__ as command
from benchmarks.torch_step.layouts import LAYOUTS
from benchmarks.torch_step.optimizers import OPTIMIZERS, PublishedINNA, PublishedINNAprop
from benchmarks.torch_step.rows import LOW_PRECISION_ROWS, ROWS
from benchmarks.torch_step.timing import Ratio


@pytest.mark.parametrize(
    ("layout", "tensors", "parameters"),
    [("lenet5", 10, 61_706), ("resnet50", 161, 25_557_032), ("vit-s", 152, 22_050_664)],
)
def test_layouts_have_the_sizes_of_the_networks(layout: str, tensors: int, parameters: int) -> None:
    shapes = LAYOUTS[layout].shapes
    assert (len(shapes), sum(map(math.prod, shapes))) == (tensors, parameters)


def test_rows_name_known_optimizers_and_layouts() -> None:
    for row in (*ROWS, *LOW_PRECISION_ROWS):
        assert {row.ours, row.theirs} <= set(OPTIMIZERS)
        assert set(row.at_most) <= set(row.layouts) <= set(LAYOUTS)


@pytest.mark.parametrize(
    ("published", "ours", "options"),
    [(PublishedINNA, inna_torch.INNA, {}), (PublishedINNAprop, inna_torch.INNAprop, {"published_decay": True})],
)
def test_published_loops_follow_our_trajectories(published: Any, ours: Any, options: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    start, *grads = torch.randn(50, 30, dtype=torch.float64, generator=generator)
    ends = []
    for make, arguments in ((published, {}), (ours, options)):
        p = torch.nn.Parameter(start.clone())
        optimizer = make([p], **arguments)
        for grad in grads:
            p.grad = grad.clone()
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-13)


def test_ratios_are_of_medians_and_quartiles_of_rounds() -> None:
    ratio = Ratio.of([2.0, 4.0, 6.0], [1.0, 1.0, 2.0])
    assert (ratio.median, ratio.step_ms) == (4.0, 4000.0)
    assert (ratio.low, ratio.high) == (2.0, 4.0)


def test_the_command_prints_and_stores_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads, table = str(torch.get_num_threads()), tmp_path / "table.json"
    arguments = ["--layout", "perceptron", "--rows", "INNA / SGD fused", "--rounds", "2", "--threads", threads]
    command.main([*arguments, "--json", str(table)])
    printed = capsys.readouterr().out
    time, memory = json.loads(table.read_text())["lines"]
    assert f"| perceptron | INNA | SGD fused | {time['ratio']:.2f} |" in printed
    assert f"| perceptron | INNA | extra memory / parameters | {memory['ratio']:.3f} |" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layout", "gpt3"], "gpt3: choose from perceptron"),
        (["--rounds", "1"], "--rounds must be at least 2, got 1"),
        (["--against", "nowhere"], "--against must be the root of a checkout, got nowhere"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err
