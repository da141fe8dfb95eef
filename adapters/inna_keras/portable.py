"""Optimizer state in files that every host reads (`inna_core.portable`)."""

import os
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from inna_keras._base import Elementwise, hyperparameters

if TYPE_CHECKING:
    from inna_core.portable import PortableState


def save_state(path: str | os.PathLike[str], model: Any, *, parameters: bool = True) -> None:
    """Save the state of a model's optimizer, and the trainable variables, in a file that every host can load.

    Names are the variables' paths, as "sequential/dense/kernel": give layers names, since Keras numbers those without.
    The file is written atomically (`inna_core.portable.save`). It does not contain variables that are not trained, such
    as moving averages of batch normalization.

    Args:
        path: of the file.
        model: compiled with `INNA` or `INNAprop`.
        parameters: whether to save the trainable variables too.

    Raises:
        TypeError: if the model's optimizer is not `INNA` or `INNAprop`.
        ValueError: if the optimizer has state that the file cannot hold: averaged weights (``use_ema``), or gradients
            accumulated for an unfinished step.
        OSError: if the file cannot be written; an existing file is then unchanged.
        ImportError: if the extra ``portable`` is not installed.

    Example:
        >>> import inna_keras, keras, tempfile
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")], name="net")
        >>> model.compile(optimizer=inna_keras.INNA(), loss="mse")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_state(f"{folder}/state.safetensors", model)
        ...     sorted(load_state(f"{folder}/state.safetensors", model).slots)
        ['net/dense/bias', 'net/dense/kernel']
    """
    from inna_core import portable

    portable.save(path, portable_state(model, parameters))


def load_state(
    path: str | os.PathLike[str],
    model: Any,
    *,
    layout: Any = None,
    hyperparameters: str = "same",
    parameters: bool = True,
    step: int | None = None,
) -> "PortableState":
    """Load a state that this or another host has saved, or change nothing and raise.

    The optimizer keeps its learning rate and weight decay; schedules continue from the number of steps in the file.

    Args:
        path: of the file.
        model: compiled with `INNA` or `INNAprop`.
        layout: of files of other frameworks, see `inna_core.portable.fitted`.
        hyperparameters: "same" to refuse dampings that differ from the optimizer's, "own" to keep the optimizer's.
        parameters: whether to load the trainable variables too, which must then be in the file.
        step: number of steps made, for files without it.

    Returns:
        What was loaded, under the names of the variables.

    Raises:
        ValueError: if the file is damaged, of another kind, or does not fit; nothing has then changed.
        TypeError: if the model's optimizer is not `INNA` or `INNAprop`.
        OSError: if the file cannot be read.
        ImportError: if the extra ``portable`` is not installed.
    """
    from inna_core import portable
    from inna_core.portable.fitting import check_one_count

    state = portable.load(path)
    like = portable_state(model, parameters, saving=False)
    fitted = portable.fitted(state, like, layout, hyperparameters=hyperparameters, step=step)
    count = check_one_count(fitted)
    optimizer = own_optimizer(model)
    accumulators = [x for x in getattr(optimizer, "_accumulated_gradients", []) if x is not None]
    zeros = [ops.zeros(x.shape, x.dtype) for x in accumulators]
    for name, (variable, slots) in held(optimizer, model).items():
        for slot, own in slots.items():
            own.assign(fitted.slots[name][slot])
        if parameters:
            variable.assign(fitted.parameters[name])
    optimizer._iterations.assign(count * (optimizer.gradient_accumulation_steps or 1))
    for accumulator, zero in zip(accumulators, zeros, strict=True):
        accumulator.assign(zero)
    return fitted


def own_optimizer(model: Any) -> Any:
    """Return the model's optimizer, built, without a LossScaleOptimizer around it."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not isinstance(optimizer, Elementwise):
        raise TypeError(
            f"Invalid model: optimizer {type(optimizer).__name__} (expected INNA or INNAprop of inna_keras, by "
            "which the model is compiled)"
        )
    if optimizer.use_ema:
        raise ValueError(
            "Invalid model: an optimizer with use_ema (expected one without: portable files do not hold averages)"
        )
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    return optimizer


def held(optimizer: Any, model: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return the trainable variables and their slots, by path."""
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    for variable in model.trainable_variables:
        index = optimizer._get_variable_index(variable)
        slots = {name: variables[index] for name, variables in optimizer._slots.items()}
        if optimizer._compensations[index] is not None:
            slots["compensation"] = optimizer._compensations[index]
        if variable.path in found or any(slot is None for slot in slots.values()):
            raise ValueError(f"Invalid model: variable {variable.path!r} (expected one of this path, with a state)")
        found[variable.path] = variable, slots
    return found


def portable_state(model: Any, parameters: bool, *, saving: bool = True) -> "PortableState":
    """Return the state to save."""
    from inna_core.portable.state import PortableState

    optimizer = own_optimizer(model)
    every = optimizer.gradient_accumulation_steps or 1
    steps, part = divmod(int(as_numpy(optimizer._iterations)), every)
    if part and saving:
        raise ValueError(f"Invalid model: {part} of {every} gradients accumulated (expected none: save after a step)")
    own = held(optimizer, model)
    slots = {name: {slot: as_numpy(x) for slot, x in slots.items()} for name, (_, slots) in own.items()}
    values = {name: as_numpy(variable) for name, (variable, _) in own.items()} if parameters else {}
    record = {
        name: {
            "learning_rate": float(as_numpy(optimizer.learning_rate)),
            "weight_decay": optimizer._decay_rate(variable),
            "published_decay": optimizer.published_decay,
            **hyperparameters(optimizer.algorithm),
        }
        for name, (variable, _) in own.items()
    }
    return PortableState("keras", type(optimizer.algorithm).__name__, steps, slots, values, record)


def as_numpy(x: Any) -> Any:
    """Return a variable's values as a NumPy array of the same dtype, in memory of its own."""
    import numpy as np

    if keras.backend.standardize_dtype(x.dtype) == "bfloat16" and keras.backend.backend() == "torch":
        # torch has no NumPy array of this dtype; all its values are float32's too
        from inna_core.portable.file import numpy_dtype

        return np.array(ops.convert_to_numpy(ops.cast(x, "float32"))).astype(numpy_dtype("bfloat16"))
    return np.array(ops.convert_to_numpy(x))
