"""Two processes, and one again, train as a single one does: DDP, ZeRO, FSDP2 and resharded checkpoints, over gloo."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("this torch has no gloo", allow_module_level=True)

from conformance_tests.torch_host import ranks as torch_ranks  # noqa: E402
from conformance_tests.torch_host.rows import COMPILES, difference  # noqa: E402

pytestmark = pytest.mark.nightly  # processes take seconds to start
EACH = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[COMPILES] if "compiled" in options else [])
        for name, (_, options) in torch_ranks.OPTIMIZERS.items()
    ],
)


def run(world: int, task: str, name: str, tmp_path: Path, scratch: Path) -> list[list[Any]]:
    """Return the parameters that each rank ends with."""
    rendezvous = tmp_path / f"{task}{len(list(tmp_path.iterdir()))}"
    torch.multiprocessing.spawn(torch_ranks.work, (world, task, name, str(scratch), str(rendezvous)), nprocs=world)
    return [torch.load(f"{rendezvous}.{rank}") for rank in range(world)]


def assert_like_alone(ranks: list[list[Any]], name: str, steps: int = torch_ranks.STEPS) -> None:
    want = torch_ranks.alone(name, steps)
    assert difference(want, list(torch_ranks.network().parameters())) > 1e-3
    for params in ranks:
        assert difference(params, want) < 1e-12


@pytest.mark.parametrize("task", ["ddp", "zero", "fsdp2"])
@EACH
def test_two_ranks_train_as_one(task: str, name: str, tmp_path: Path) -> None:
    assert_like_alone(run(2, task, name, tmp_path, tmp_path), name)


@EACH
def test_a_checkpoint_goes_from_two_ranks_to_one_and_back(name: str, tmp_path: Path) -> None:
    scratch = tmp_path / "checkpoints"
    scratch.mkdir()
    for part, world in enumerate((2, 1, 2), start=1):
        ranks = run(world, "checkpointed", name, tmp_path, scratch)
        assert_like_alone(ranks, name, part * torch_ranks.STEPS // 3)


@EACH
def test_a_portable_file_is_gathered_from_two_ranks(name: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    assert_like_alone(run(2, "portable", name, tmp_path, tmp_path), name)
