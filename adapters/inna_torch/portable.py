"""Optimizer state in files that every host reads (`inna_core.portable`), and states of the authors' code."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from inna_core.coefficients import MOMENTUM
from inna_torch._batch import init_state, tensor_names
from inna_torch._hyperparameters import Hyperparameters, hyperparameters
from inna_torch._optimizer import Elementwise, restored
from inna_torch._tensors import NATIVE_TENSOR_TYPES, Tensor

if TYPE_CHECKING:
    from inna_core.portable import PortableState


def save_state(
    path: str | os.PathLike[str],
    optimizer: Elementwise,
    model: torch.nn.Module | Iterable[tuple[str, Tensor]],
    *,
    parameters: bool = True,
    step: int | None = None,
) -> None:
    """Save an optimizer's state, and the parameters, in a file that every host can load.

    The file is written atomically (`inna_core.portable.save`).

    Args:
        path: of the file.
        optimizer: `INNA` or `INNAprop`.
        model: names the parameters: a module, or pairs of a name and a tensor.
        parameters: whether to save the optimizer's parameters too.
        step: number of steps made. INNA in torch does not count them, but optax and Keras need the number.

    Raises:
        TypeError: if the optimizer is not `INNA` or `INNAprop`.
        ValueError: if a parameter has no name in the model, is sharded over processes, or step contradicts the state.
        OSError: if the file cannot be written; an existing file is then unchanged.
        ImportError: if the extra ``portable`` is not installed.

    Example:
        >>> import inna_torch, tempfile, torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = inna_torch.INNA(model.parameters())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_state(f"{folder}/state.safetensors", optimizer, model, step=0)
        ...     load_state(f"{folder}/state.safetensors", optimizer, model).step
        0
    """
    from inna_core import portable

    portable.save(path, portable_state(optimizer, model, parameters, step))


def load_state(
    path: str | os.PathLike[str],
    optimizer: Elementwise,
    model: torch.nn.Module | Iterable[tuple[str, Tensor]],
    *,
    layout: Any = None,
    hyperparameters: str = "same",
    parameters: bool = True,
    step: int | None = None,
) -> "PortableState":
    """Load a state that this or another host has saved, or change nothing and raise.

    The param groups keep their lr, weight decay and flags: set them as for a new run.

    Args:
        path: of the file.
        optimizer: `INNA` or `INNAprop`, with the parameters that the file has.
        model: names the parameters, as in `save_state`.
        layout: of files of other frameworks, see `inna_core.portable.fitted`.
        hyperparameters: "same" to refuse dampings that differ from the optimizer's, "own" to keep the optimizer's.
        parameters: whether to load the parameters too, which must then be in the file.
        step: number of steps made, needed for INNAprop if the file has none.

    Returns:
        What was loaded, under the names of the model.

    Raises:
        ValueError: if the file is damaged, of another kind, or does not fit; nothing has then changed.
        TypeError: if the optimizer is not `INNA` or `INNAprop`.
        OSError: if the file cannot be read.
        ImportError: if the extra ``portable`` is not installed.
    """
    from inna_core import portable

    state = portable.load(path)
    own = named_parameters(optimizer, model)
    fitted = portable.fitted(
        state, portable_state(optimizer, model, parameters, None), layout, hyperparameters=hyperparameters, step=step
    )
    counts = "step" in optimizer.algorithm.state_type._fields
    if counts and any(fitted.step_of(name) is None for name in own):
        raise ValueError("Invalid path: no number of steps in it (expected one, or the argument step)")
    with torch.inference_mode(False), torch.no_grad():  # later steps could not write inference tensors
        entries: dict[str, dict[str, Tensor]] = {}
        for name, (p, group) in own.items():
            entries[name] = {slot: as_tensor(array).to(p.device) for slot, array in fitted.slots[name].items()}
            if counts:
                entries[name]["step"] = restored("step", torch.tensor(fitted.step_of(name)), p, group["capturable"])
        values = {name: as_tensor(array) for name, array in fitted.parameters.items()}
        for name, (p, _) in own.items():  # nothing below can fail
            optimizer.state[p].update(entries[name])
            if parameters:
                p.copy_(values[name])
    return fitted


def load_published_state(optimizer: Elementwise, state_dict: Mapping[str, Any]) -> None:
    """Load the ``state_dict`` of the authors' INNA or INNAprop, or change nothing and raise.

    Load the model's parameters first: the velocity is computed from the state's psi and the parameters. Step sizes,
    dampings and the other numbers of the groups are loaded too. If the weight decay is not 0, ``published_decay`` is
    set, so that the run continues as it would have under the authors' code.

    Args:
        optimizer: `INNA` or `INNAprop` with the same groups.
        state_dict: of the optimizers in github.com/innaprop/innaprop, or of INNA in
            github.com/camcastera/INNA-for-DeepLearning.

    Raises:
        ValueError: if the state is of another optimizer, its shapes differ from the parameters', or INNA's
            ``decaypower`` is not 0; nothing has then changed.
        TypeError: if the optimizer is not `INNA` or `INNAprop`.

    Example:
        >>> import inna_torch, torch
        >>> p = torch.nn.Parameter(torch.tensor([2.0]))
        >>> published = {"state": {0: {"step": 1, "psi": torch.tensor([1.5])}},
        ...              "param_groups": [{"lr": 0.1, "alpha": 0.5, "beta": 0.25, "decaypower": 0.0, "params": [0]}]}
        >>> optimizer = inna_torch.INNA([p])
        >>> load_published_state(optimizer, published)
        >>> optimizer.state[p]["velocity"]
        tensor([1.])
    """
    check_optimizer(optimizer)
    fields = optimizer.algorithm.state_type._fields
    expected = {"psi", "step", *({"exp_avg_sq"} if "second_moment" in fields else ())}
    saved, groups = state_dict["state"], state_dict["param_groups"]
    sizes, own_sizes = ([len(group["params"]) for group in x] for x in (groups, optimizer.param_groups))
    if sizes != own_sizes:
        raise ValueError(f"Invalid state_dict: groups of {sizes} parameters (expected {own_sizes})")
    state: dict[Any, dict[str, Any]] = {}
    new_groups = []
    for group, own in zip(groups, optimizer.param_groups, strict=True):
        if group.get("decaypower", 0.0):
            raise ValueError(
                f"Invalid state_dict: decaypower {group['decaypower']!r} (expected 0: set it to 0 there, go on with "
                "LambdaLR and inna_core.schedules.PowerDecay)"
            )
        known = {k: x for k, x in group.items() if k in own and k != "params"}
        known |= {**dict.fromkeys(MOMENTUM), "published_decay": bool(group.get("weight_decay", 0.0))}
        new_group = {**own, **known, "params": list(group["params"])}
        by = hyperparameters(optimizer.algorithm, new_group).algorithm
        for key, p in zip(group["params"], own["params"], strict=True):
            entries = saved.get(key, {})
            if entries.keys() - {"step"}:
                state[key] = from_published(f"state[{key!r}]", entries, expected, p, by)
        new_groups.append(new_group)
    optimizer.load_state_dict({"state": state, "param_groups": new_groups})


def from_published(name: str, entries: Mapping[str, Any], expected: set[str], p: Tensor, by: Any) -> dict[str, Any]:
    """Return a parameter's state from that of the authors' code."""
    from inna_core.psi import velocity_from_psi

    if set(entries) != expected:
        raise ValueError(f"Invalid state_dict: {name} has {sorted(entries)} (expected {sorted(expected)})")
    for key in sorted(expected - {"step"}):
        if entries[key].shape != p.shape:
            found, own = tuple(entries[key].shape), tuple(p.shape)
            raise ValueError(f"Invalid state_dict: {key} of {name} has shape {found} (expected {own})")
    wide = torch.complex128 if p.is_complex() else torch.float64  # psi and theta nearly cancel
    theta, psi = (x.detach().to(p.device, wide) for x in (p, entries["psi"]))
    state: dict[str, Any] = {"velocity": velocity_from_psi(psi, theta, alpha=by.alpha, beta=by.beta)}
    if "exp_avg_sq" in expected:
        state["second_moment"] = entries["exp_avg_sq"]
        state["step"] = torch.as_tensor(entries["step"], dtype=torch.float32).reshape(())
    return state


def check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Elementwise):
        raise TypeError(f"Invalid optimizer: {type(optimizer).__name__} (expected INNA or INNAprop of inna_torch)")


def named_parameters(optimizer: Any, model: Any) -> dict[str, tuple[Tensor, dict[str, Any]]]:
    """Return the optimizer's parameters and their groups, by their names in the model."""
    check_optimizer(optimizer)
    pairs = list(model.named_parameters() if isinstance(model, torch.nn.Module) else model)
    names = {p: name for name, p in pairs}
    if len(names) != len(pairs) or len(set(names.values())) != len(pairs):
        raise ValueError("Invalid model: a name or a tensor occurs twice (expected pairs of one name and one tensor)")
    own = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p not in names:
                raise ValueError(
                    f"Invalid model: no name for a parameter of shape {tuple(p.shape)} (expected the model whose "
                    "parameters the optimizer has)"
                )
            if type(p) not in NATIVE_TENSOR_TYPES:
                raise ValueError(
                    f"Invalid optimizer: {names[p]!r} is a {type(p).__name__} (expected whole tensors: gather them "
                    "first, see docs/portable.md)"
                )
            own[names[p]] = p, group
    return own


def portable_state(optimizer: Any, model: Any, parameters: bool, step: int | None) -> "PortableState":
    """Return the state to save. State that the first step would initialize is initialized here in a copy."""
    from inna_core.portable.state import PortableState, counts

    own = named_parameters(optimizer, model)
    slots: dict[str, Any] = {}
    numbers: dict[str, dict[str, Any]] = {}
    steps: dict[str, int] = {}
    for name, (p, group) in own.items():
        hyper = hyperparameters(optimizer.algorithm, group)
        held = dict(optimizer.state[p]) if p in optimizer.state else {}
        init_state(p, held, hyper)
        slots[name] = {slot: as_numpy(held[slot]) for slot in tensor_names(hyper, p.dtype)}
        numbers[name] = recorded(hyper, group)
        if "step" in held and "step" in hyper.algorithm.state_type._fields:
            steps[name] = round(float(held["step"]))
    largest, others = counts(steps)
    if steps and step is not None and step != largest:
        raise ValueError(f"Invalid step: {step!r} (expected {largest}, as in the state, or None)")
    values = {name: as_numpy(p) for name, (p, _) in own.items()} if parameters else {}
    count = largest if steps else step
    return PortableState("torch", optimizer.algorithm.__name__, count, slots, values, numbers, others)


def recorded(hyper: Hyperparameters, group: Mapping[str, Any]) -> dict[str, Any]:
    names = ("lr", "weight_decay", *hyper.algorithm.__match_args__)
    numbers = {name: None if group[name] is None else float(group[name]) for name in names}
    return {**numbers, "published_decay": hyper.published_decay, "maximize": hyper.maximize}


def as_numpy(x: Tensor) -> Any:
    """Return a tensor's values as a NumPy array of the same dtype, in memory of its own."""
    x = x.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if x.dtype == torch.bfloat16:
        from inna_core.portable.file import numpy_dtype

        return x.view(torch.int16).numpy().view(numpy_dtype("bfloat16")).copy()
    return x.numpy().copy()


def as_tensor(array: Any) -> Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)
