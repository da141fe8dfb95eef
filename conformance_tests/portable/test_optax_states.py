"""`inna_optax.save_state` and `load_state`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

import jax.numpy as jnp  # noqa: E402

import inna_optax  # noqa: E402
from inna_core import portable  # noqa: E402

OPTIMIZERS = {"INNA": inna_optax.inna, "INNAprop": inna_optax.innaprop}
EACH = pytest.mark.parametrize("name", OPTIMIZERS)


def tree(seed: int, dtype: str = "float64") -> Any:
    rng = np.random.default_rng(seed)
    return {"dense": {"kernel": jnp.asarray(rng.standard_normal((3, 3)), dtype)}, "scales": [jnp.asarray(0.5, dtype)]}


def steps(transform: Any, state: Any, params: Any, first: int, n: int) -> tuple[Any, Any]:
    for k in range(first, first + n):
        grads = jax.tree.map(lambda g, p: g.astype(p.dtype), tree(k + 1), params)
        updates, state = transform.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return state, params


def assert_equal(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@EACH
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", pytest.param("float16", marks=pytest.mark.nightly)])
def test_a_run_goes_on_bit_by_bit(name: str, dtype: str, tmp_path: Path) -> None:
    transform, params = OPTIMIZERS[name](0.01), tree(0, dtype)
    state, params = steps(transform, transform.init(params), params, 0, 2)
    inna_optax.save_state(tmp_path / "state", state, params)
    template = tree(9, dtype)
    loaded = inna_optax.load_state(tmp_path / "state", transform.init(template), template)
    assert_equal(loaded, (state, params))
    assert_equal(steps(transform, *loaded, 2, 1), steps(transform, state, params, 2, 1))


def test_names_are_the_paths_of_leaves(tmp_path: Path) -> None:
    params = tree(0)
    state = inna_optax.inna().init(params)
    inna_optax.save_state(tmp_path / "state", state, params, hyperparameters={"alpha": 0.5, "published_decay": False})
    saved = portable.load(tmp_path / "state")
    assert set(saved.slots) == {"dense/kernel", "scales/0"}
    assert saved.hyperparameters["scales/0"] == {"alpha": 0.5, "published_decay": False}
    inna_optax.save_state(tmp_path / "state", inna_optax.inna().init(jnp.ones(2)))
    assert set(portable.load(tmp_path / "state").slots) == {"params"}


def test_the_state_may_be_inside_of_others(tmp_path: Path) -> None:
    transform = optax.apply_if_finite(optax.chain(optax.clip_by_global_norm(1.0), inna_optax.inna()), 3)
    params = tree(0)
    state, params = steps(transform, transform.init(params), params, 0, 2)
    inna_optax.save_state(tmp_path / "state", state, params)
    loaded = inna_optax.load_state(tmp_path / "state", transform.init(params), params)
    assert_equal(loaded, (state, params))


def test_leaves_that_are_not_trained_have_no_state(tmp_path: Path) -> None:
    params = tree(0)
    frozen = {"dense": {"kernel": True}, "scales": [False]}
    transform = optax.masked(inna_optax.innaprop(), frozen)
    state, params = steps(transform, transform.init(params), params, 0, 2)
    inna_optax.save_state(tmp_path / "state", state)
    loaded, none = inna_optax.load_state(tmp_path / "state", transform.init(params))
    assert none is None
    assert_equal(loaded, state)


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "shape": (tree(0), {**tree(0), "scales": [jnp.ones(2)]}, "has shape \\(\\)"),
    "dtype": (tree(0), tree(0, "float32"), "has dtype float64 \\(expected float32\\)"),
    "missing": ({"dense": tree(0)["dense"]}, tree(0), "missing \\['scales/0'\\]"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_files_that_do_not_fit_are_refused(row: str, tmp_path: Path) -> None:
    saved, own, message = REFUSED[row]
    transform = inna_optax.inna()
    inna_optax.save_state(tmp_path / "state", transform.init(saved), saved)
    with pytest.raises(ValueError, match=message):
        inna_optax.load_state(tmp_path / "state", transform.init(own), own)


def test_other_states_are_refused(tmp_path: Path) -> None:
    params = tree(0)
    both = optax.chain(inna_optax.inna(), inna_optax.inna())
    for transform in (optax.adam(0.1), both):
        with pytest.raises(ValueError, match=r"Invalid state: [02] states of inna or innaprop in it \(expected one\)"):
            inna_optax.save_state(tmp_path / "state", transform.init(params), params)
    inna_optax.save_state(tmp_path / "state", inna_optax.inna().init(params), params)
    with pytest.raises(ValueError, match="a state of INNA "):
        inna_optax.load_state(tmp_path / "state", inna_optax.innaprop().init(params), params)


def test_files_without_a_number_of_steps_need_one(tmp_path: Path) -> None:
    from dataclasses import replace

    params = tree(0)
    state = inna_optax.inna().init(params)
    inna_optax.save_state(tmp_path / "state", state, params)
    portable.save(tmp_path / "state", replace(portable.load(tmp_path / "state"), step=None))
    with pytest.raises(ValueError, match="no number of steps in it"):
        inna_optax.load_state(tmp_path / "state", state, params)
    assert inna_optax.load_state(tmp_path / "state", state, params, step=7)[0].step == 7
    portable.save(tmp_path / "state", replace(portable.load(tmp_path / "state"), step=7, steps={"scales/0": 3}))
    with pytest.raises(ValueError, match=r"steps \{'scales/0': 3\} \(expected 7 for each"):
        inna_optax.load_state(tmp_path / "state", state, params)
