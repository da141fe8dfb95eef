"""Optimizer state in files that every host reads (`inna_core.portable`)."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr

from inna_optax.transforms import INNApropState, INNAState

if TYPE_CHECKING:
    from inna_core.portable import PortableState

ALGORITHMS: dict[type, str] = {INNAState: "INNA", INNApropState: "INNAprop"}


def save_state(
    path: str | os.PathLike[str],
    state: Any,
    params: Any = None,
    *,
    hyperparameters: Mapping[str, Any] | None = None,
) -> None:
    """Save an optimizer's state, and the parameters, in a file that every host can load.

    Names are the paths of the leaves in the tree of parameters, as "dense/kernel". The file is written atomically
    (`inna_core.portable.save`).

    Args:
        path: of the file.
        state: of `inna` or `innaprop`, or one that contains such a state, as that of `optax.chain`. The rest of it is
            not saved.
        params: the parameters, to save them too.
        hyperparameters: the numbers given to `inna` or `innaprop`, for the record; other hosts compare the dampings
            when they load.

    Raises:
        ValueError: if there is not exactly one state of this package, or the trees do not fit.
        OSError: if the file cannot be written; an existing file is then unchanged.
        ImportError: if the extra ``portable`` is not installed.

    Example:
        >>> import inna_optax, tempfile, jax.numpy as jnp
        >>> params = {"w": jnp.ones(3)}
        >>> optimizer = inna_optax.inna(0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_state(f"{folder}/state.safetensors", optimizer.init(params), params)
        ...     state, params = load_state(f"{folder}/state.safetensors", optimizer.init(params), params)
        >>> int(state.step)
        0
    """
    from inna_core import portable

    portable.save(path, portable_state(state, params, hyperparameters or {}))


def load_state(
    path: str | os.PathLike[str],
    state: Any,
    params: Any = None,
    *,
    layout: Any = None,
    step: int | None = None,
) -> tuple[Any, Any]:
    """Return a state and parameters that this or another host has saved.

    Args:
        path: of the file.
        state: of the same optimizer, as its ``init`` returns it. The state of `inna` or `innaprop` in it is replaced;
            the rest is returned as it is, so other step counts in it, such as that of `optax.inject_hyperparams`,
            start from 0.
        params: the parameters, to load them too; they must then be in the file. With None the returned ones are None.
        layout: of files of other frameworks, see `inna_core.portable.fitted`.
        step: number of steps made, for files without it.

    Returns:
        The state and the parameters, as new trees; the arguments stay unchanged.

    Raises:
        ValueError: if the file is damaged, of another kind, or does not fit.
        OSError: if the file cannot be read.
        ImportError: if the extra ``portable`` is not installed.
    """
    from inna_core import portable
    from inna_core.portable.fitting import check_one_count

    like = portable_state(state, params, {})
    fitted = portable.fitted(portable.load(path), like, layout, step=step)
    own = own_state(state)
    fields = {"step": jnp.asarray(check_one_count(fitted), own.step.dtype)}
    fields |= {
        slot: with_leaves(getattr(own, slot), {name: slots.get(slot) for name, slots in fitted.slots.items()})
        for slot in own._fields
        if slot != "step" and getattr(own, slot) is not None
    }
    loaded = own._replace(**fields)
    new_state = jax.tree.map(lambda x: loaded if is_own(x) else x, state, is_leaf=is_own)
    return new_state, None if params is None else with_leaves(params, fitted.parameters)


def is_own(x: Any) -> bool:
    return type(x) in ALGORITHMS


def own_state(state: Any) -> Any:
    found = [x for x in jax.tree.leaves(state, is_leaf=is_own) if is_own(x)]
    if len(found) != 1:
        raise ValueError(f"Invalid state: {len(found)} states of inna or innaprop in it (expected one)")
    return found[0]


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """Return the leaves by their paths, "params" for a tree that is a leaf."""
    leaves = jax.tree.leaves_with_path(tree)
    named = {keystr(path, simple=True, separator="/") or "params": leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("Invalid params: two leaves with one path, written with '/' (expected different ones)")
    return named


def with_leaves(tree: Any, arrays: Mapping[str, Any]) -> Any:
    """Return a tree with new leaves, by name, on the devices of the present ones."""
    leaves = [placed(arrays[name], leaf) for name, leaf in leaves_by_name(tree).items()]
    return jax.tree.structure(tree).unflatten(leaves)


def placed(array: Any, like: Any) -> Any:
    committed = isinstance(like, jax.Array) and like.committed
    return jax.device_put(array, like.sharding) if committed else jnp.asarray(array)


def portable_state(state: Any, params: Any, hyperparameters: Mapping[str, Any]) -> "PortableState":
    """Return the state to save."""
    import numpy as np

    from inna_core.portable.state import PortableState

    own = own_state(state)
    slots: dict[str, dict[str, Any]] = {}
    for slot in own._fields:
        if slot != "step" and getattr(own, slot) is not None:
            for name, x in leaves_by_name(getattr(own, slot)).items():
                slots.setdefault(name, {})[slot] = np.asarray(x)
    values = {} if params is None else {name: np.asarray(jnp.asarray(x)) for name, x in leaves_by_name(params).items()}
    numbers = {name: x if isinstance(x, bool | None) else float(x) for name, x in hyperparameters.items()}
    record = dict.fromkeys(slots, numbers) if numbers else {}
    return PortableState("optax", ALGORITHMS[type(own)], int(own.step), slots, values, record)
