"""What the ranks of `test_torch_distributed` do: train a small network in one of torch's distributed ways."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import inna_torch

STEPS = 9
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "INNA": (inna_torch.INNA, {"lr": 0.05, "weight_decay": 0.01}),
    "INNA-foreach": (inna_torch.INNA, {"lr": 0.05, "foreach": True}),
    "INNA-single": (inna_torch.INNA, {"lr": 0.05, "foreach": False}),
    "INNAprop": (inna_torch.INNAprop, {"lr": 0.01}),
    "INNAprop-compiled": (inna_torch.INNAprop, {"lr": 0.01, "compiled": True, "foreach": False}),
}


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    # widths that two ranks cannot halve, so that shards differ
    return torch.nn.Sequential(torch.nn.Linear(6, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)).double()


def batch(k: int, rank: int = 0, world: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    return x.chunk(world)[rank], y.chunk(world)[rank]


def train(model: Any, optimizer: Any, steps: range, rank: int = 0, world: int = 1) -> None:
    scheduler_lr = optimizer.param_groups[0]["lr"]
    for k in steps:
        for group in optimizer.param_groups:
            group["lr"] = scheduler_lr * (1 - k / (2 * STEPS))
        x, y = batch(k, rank, world)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    for group in optimizer.param_groups:
        group["lr"] = scheduler_lr


def alone(name: str, steps: int = STEPS) -> list[torch.Tensor]:
    """Return the parameters after training in this process."""
    optimizer, options = OPTIMIZERS[name]
    model = network()
    train(model, optimizer(model.parameters(), **options), range(steps))
    return [p.detach() for p in model.parameters()]


def full(model: Any) -> list[torch.Tensor]:
    return [(p.full_tensor() if hasattr(p, "full_tensor") else p).detach() for p in model.parameters()]


def ddp(rank: int, world: int, name: str, _: str) -> list[torch.Tensor]:
    optimizer, options = OPTIMIZERS[name]
    model = torch.nn.parallel.DistributedDataParallel(network())
    train(model, optimizer(model.parameters(), **options), range(STEPS), rank, world)
    return full(model)


def zero(rank: int, world: int, name: str, _: str) -> list[torch.Tensor]:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    optimizer, options = OPTIMIZERS[name]
    model = torch.nn.parallel.DistributedDataParallel(network())
    sharded = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=optimizer, **options)
    train(model, sharded, range(STEPS // 2), rank, world)
    sharded.consolidate_state_dict(0)
    if rank == 0:  # the whole state, on one rank, in the form of a plain optimizer
        state = sharded.state_dict()["state"]
        assert sorted(state) == list(range(4))
        assert all(state[i]["velocity"].shape == p.shape for i, p in enumerate(model.parameters()))
    train(model, sharded, range(STEPS // 2, STEPS), rank, world)
    return full(model)


def sharded_model(world: int) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    if world > 1:
        mesh = init_device_mesh("cpu", (world,))
        fully_shard(model[0], mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model


def fsdp2(rank: int, world: int, name: str, _: str) -> list[torch.Tensor]:
    optimizer, options = OPTIMIZERS[name]
    model = sharded_model(world)
    instance = optimizer(model.parameters(), **options)
    train(model, instance, range(STEPS), rank, world)
    for p in model.parameters():
        assert type(instance.state[p]["velocity"]) is type(p.data)  # a DTensor like the parameter, for checkpoints
    return full(model)


def checkpointed(rank: int, world: int, name: str, folder: str) -> list[torch.Tensor]:
    """Go on for a third of the steps from the latest checkpoint in the folder, if there is one, and save."""
    from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    optimizer, options = OPTIMIZERS[name]
    model = sharded_model(world)
    if world == 1:
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()  # everything must come from the checkpoint
    instance = optimizer(model.parameters(), **options)
    done = len(list(Path(folder).iterdir()))
    dist.barrier()
    if done:
        states: dict[str, Any] = dict(zip(("model", "optimizer"), get_state_dict(model, instance), strict=True))
        state_dict_loader.load(states, checkpoint_id=f"{folder}/{done}")
        set_state_dict(model, instance, model_state_dict=states["model"], optim_state_dict=states["optimizer"])
    third = STEPS // 3
    train(model, instance, range(done * third, (done + 1) * third), rank, world)
    states = dict(zip(("model", "optimizer"), get_state_dict(model, instance), strict=True))
    state_dict_saver.save(states, checkpoint_id=f"{folder}/{done + 1}")
    return full(model)


def portable(rank: int, world: int, name: str, folder: str) -> list[torch.Tensor]:
    """Train sharded, gather into a portable file on rank 0, and go on from it alone; as docs/portable.md shows it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

    optimizer, options = OPTIMIZERS[name]
    model = sharded_model(world)
    instance = optimizer(model.parameters(), **options)
    train(model, instance, range(STEPS // 2), rank, world)
    gathered = StateDictOptions(full_state_dict=True, cpu_offload=True)
    parameters, state = get_state_dict(model, instance, options=gathered)
    path = f"{folder}/state.safetensors"
    if rank == 0:
        copy = network()
        own = optimizer(copy.parameters(), **options)
        alone = StateDictOptions()
        set_state_dict(copy, own, model_state_dict=parameters, optim_state_dict=state, options=alone)
        inna_torch.save_state(path, own, copy)
    dist.barrier()
    last = network()
    with torch.no_grad():
        for p in last.parameters():
            p.zero_()
    restored = optimizer(last.parameters(), **options)
    inna_torch.load_state(path, restored, last)
    train(last, restored, range(STEPS // 2, STEPS))
    return full(last)


def work(rank: int, world: int, task: str, name: str, scratch: str, rendezvous: str) -> None:
    """Join the others, do a task, and leave the resulting parameters in a file."""
    warnings.simplefilter("ignore")  # what torch's distributed parts warn about is not ours
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    try:
        params = globals()[task](rank, world, name, scratch)
        torch.save(params, f"{rendezvous}.{rank}")
    finally:
        dist.destroy_process_group()
    # Thread pools that torch starts for checkpoints are at times still running when the interpreter is torn down, and
    # abort the process ("terminate called without an active exception"). Everything is written; a failure has raised.
    os._exit(0)
