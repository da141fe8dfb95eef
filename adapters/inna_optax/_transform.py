"""The transformation behind `inna` and `innaprop`: an algorithm of `inna_core`, run on every leaf of a pytree."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.tree_util import keystr

from inna_core._validation import checked_choice, checked_number, is_complex, is_narrow, is_real_floating
from inna_core.algorithm import Algorithm, slot_names, state_of
from inna_core.compensation import compensated_increment
from inna_core.evaluation_order import update_state_after_params
from inna_core.weight_decay import check_published_decay, update_with_decay


@dataclass(frozen=True)
class Elementwise:
    """An optax transformation that runs an algorithm of `inna_core` on every leaf of a pytree.

    The step size is part of the dynamics, so schedules are evaluated here, and the updates contain the learning rate
    and the negative sign.

    Args:
        algorithm: of `inna_core`; its hyperparameters may be traced.
        state_type: NamedTuple with the fields ``step`` and ``compensation`` and those of the algorithm's state.
        learning_rate: step size; a number, a scalar array, or a schedule ``step -> lr``.
        weight_decay: rate of the decoupled decay; a number or a scalar array.
        mask: pytree of booleans, a prefix of the parameters' tree, or a callable ``params -> pytree``: only leaves with
            True decay.
        published_decay: whether the decay acts on the velocity too.
        kahan_sum: compensate the rounding of parameter updates; None for float16 and bfloat16 leaves only.
    """

    algorithm: Algorithm
    state_type: type[Any]
    learning_rate: Any
    weight_decay: Any
    mask: Any
    published_decay: bool
    kahan_sum: bool | None

    def __post_init__(self) -> None:
        if checked_choice("published_decay", self.published_decay, (True, False)):
            check_published_decay(self.algorithm)
        checked_choice("kahan_sum", self.kahan_sum, (True, False, None))
        if not callable(self.learning_rate):
            object.__setattr__(self, "learning_rate", checked_number("learning_rate", floating(self.learning_rate)))
        object.__setattr__(self, "weight_decay", checked_number("weight_decay", floating(self.weight_decay)))

    def transformation(self) -> optax.GradientTransformationExtraArgs:
        return optax.GradientTransformationExtraArgs(self.init, self.update)

    @property
    def slots(self) -> list[str]:
        """The fields of the algorithm's state that are pytrees like the parameters."""
        return slot_names(self.algorithm)

    @property
    def decays(self) -> bool:
        return not isinstance(self.weight_decay, float) or self.weight_decay != 0.0

    def needs_compensation(self, param: jax.Array) -> bool:
        return is_narrow(param) if self.kahan_sum is None else self.kahan_sum

    def init(self, params: Any) -> Any:
        for path, p in jax.tree.leaves_with_path(jax.tree.map(as_leaf, params)):
            check_floating("params", path, p)

        # only `jax.tree.map` may touch the parameters: `optax.tree.map_params` initializes from placeholders
        def initial(name: str) -> Any:
            return jax.tree.map(lambda p: getattr(self.algorithm.init(wide(as_leaf(p)), xp=jnp), name), params)

        def compensation(p: Any) -> Any:
            return jnp.zeros_like(as_leaf(p)) if self.needs_compensation(as_leaf(p)) else None

        # not a tree of Nones: `optax.tree.map_params` could not map a second tree along it
        compensated = self.kahan_sum or any(self.needs_compensation(as_leaf(p)) for p in jax.tree.leaves(params))
        return self.state_type(
            step=jnp.zeros((), jnp.int32),
            **{name: initial(name) for name in self.slots},
            compensation=jax.tree.map(compensation, params) if compensated else None,
        )

    def update(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        del extra_args
        self.check_state(state, params)
        check_structure(updates, getattr(state, self.slots[0]), params)
        paths, treedef = jax.tree.flatten_with_path(updates)
        paths, grads = [path for path, _ in paths], [as_leaf(g) for _, g in paths]
        slots = [leaves_along(f"state.{name}", getattr(state, name), treedef) for name in self.slots]
        if state.compensation is None:
            compensations = [None] * len(grads)
        else:
            compensations = leaves_along("state.compensation", state.compensation, treedef)
        if params is None:
            thetas = [self.stand_in(g, v) for g, v in zip(grads, slots[0], strict=True)]
        else:
            thetas = [as_leaf(p) for p in leaves_along("params", params, treedef)]
        for path, g, theta in zip(paths, grads, thetas, strict=True):
            check_gradient(path, g, theta)
        rates = self.decay_rates(params, paths, treedef)
        lr = self.current_lr(state.step)

        leaves = [
            self.update_leaf(g, dict(zip(self.slots, own, strict=True)), c, theta, rate, state.step, lr, params is None)
            for g, own, c, theta, rate in zip(
                grads, zip(*slots, strict=True), compensations, thetas, rates, strict=True
            )
        ]
        increments, new_slots, compensations = zip(*leaves, strict=True) if leaves else ((), (), ())
        return treedef.unflatten(increments), self.state_type(
            step=optax.safe_increment(state.step),
            **{name: treedef.unflatten([own[name] for own in new_slots]) for name in self.slots},
            compensation=None if state.compensation is None else treedef.unflatten(compensations),
        )

    def check_state(self, state: Any, params: Any) -> None:
        if not isinstance(state, self.state_type):
            expected = self.state_type.__name__
            raise TypeError(f"Invalid state: {type(state).__name__} (expected {expected}, as init returns it)")
        if params is None and (self.decays or state.compensation is not None):
            raise ValueError(
                "Invalid params: None (expected the current parameters, for weight decay or a compensated sum: call "
                "update(updates, state, params))"
            )

    def current_lr(self, step: jax.Array) -> Any:
        if not callable(self.learning_rate):
            return self.learning_rate
        return checked_number("learning_rate", floating(self.learning_rate(step)))

    def stand_in(self, grad: jax.Array, velocity: jax.Array) -> jax.Array:
        """Return an array of the shape and dtype of a parameter that was not passed; its values are not used."""
        # The state has the parameter's dtype, except for narrow parameters with kahan_sum=False, as the gradient shows.
        narrow = self.kahan_sum is False and is_narrow(grad) and velocity.dtype == jnp.float32
        return grad if narrow else velocity

    def decay_rates(self, params: Any, paths: list[Any], treedef: Any) -> list[Any]:
        """Return each leaf's rate of decay. The leaves of a mask are plain or traced booleans."""
        if not self.decays or self.mask is None:
            return [self.weight_decay] * len(paths)
        mask = jax.tree.broadcast(self.mask(params) if callable(self.mask) else self.mask, params)
        marks = [checked_mark(*leaf) for leaf in zip(paths, leaves_along("mask", mask, treedef), strict=True)]
        return [
            (self.weight_decay if mark else 0.0) if isinstance(mark, bool) else jnp.where(mark, self.weight_decay, 0.0)
            for mark in marks
        ]

    def update_leaf(
        self,
        grad: jax.Array,
        slots: dict[str, jax.Array],
        compensation: jax.Array | None,
        param: jax.Array,
        decay_rate: Any,
        step: jax.Array,
        lr: Any,
        without_params: bool,
    ) -> tuple[jax.Array, dict[str, jax.Array], jax.Array | None]:
        """Return the increment, the next state and the next compensation of one leaf."""
        theta = wide(param)
        scalar_dtype = jnp.finfo(theta.dtype).dtype  # the real one where theta is complex
        update = partial(
            update_with_decay,
            in_dtype(self.algorithm, scalar_dtype),
            theta=theta if compensation is None else theta + wide(compensation),
            lr=as_scalar(lr, scalar_dtype),
            weight_decay=as_scalar(decay_rate, scalar_dtype),
            published=self.published_decay,
            xp=jnp,
        )
        grad, state = grad.astype(theta.dtype), state_of(self.algorithm, slots, lambda: as_scalar(step, scalar_dtype))
        # published decay and compensation compute the new state from the old parameter, which must be kept anyway
        if without_params or self.published_decay or compensation is not None or not traced_for_one_cpu(theta):
            delta, new_state = update(grad, state)
        else:
            delta, new_state = update_state_after_params(update, grad, state, theta, jnp)
        if compensation is not None:
            delta, remainder = compensated_increment(
                delta, wide(compensation), theta, lambda x: rounded(x, param.dtype)
            )
            compensation = remainder.astype(param.dtype)
        return delta.astype(param.dtype), new_state._asdict(), compensation


def traced_for_one_cpu(x: Any) -> bool:
    """Return whether an array is traced for a program that XLA compiles for one CPU."""
    return isinstance(x, Tracer) and jax.default_backend() == "cpu" and jax.device_count() == 1


def check_structure(updates: Any, velocity: Any, params: Any) -> None:
    """Refuse gradients whose structure differs from the state's.

    The error blames the state if the parameters have the structure of the gradients.
    """
    found, expected = jax.tree.structure(updates), jax.tree.structure(velocity)
    if found == expected:
        return
    if params is not None and found == jax.tree.structure(params):
        raise ValueError(f"Invalid state.velocity: a tree {expected} (expected the structure of updates, {found})")
    raise ValueError(
        f"Invalid updates: a tree {found} (expected the structure of the parameters given to init, {expected})"
    )


def leaves_along(name: str, tree: Any, treedef: Any, expected: str = "updates") -> list[Any]:
    """Return the subtrees of a tree at the leaves of another tree, which `expected` names in the error."""
    try:
        return treedef.flatten_up_to(tree)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Invalid {name}: a tree {jax.tree.structure(tree)} (expected the structure of {expected}, {treedef})"
        ) from error


def check_floating(name: str, path: Any, x: Any) -> None:
    if not is_real_floating(x) and not is_complex(x):
        raise TypeError(
            f"Invalid {name}{keystr(path)}: dtype {x.dtype} (expected a real or complex floating-point dtype)"
        )


def check_gradient(path: Any, g: Any, theta: Any) -> None:
    if not is_real_floating(g) and not (is_complex(g) and is_complex(theta)):
        kind = "real or complex" if is_complex(theta) else "real"
        raise TypeError(
            f"Invalid updates{keystr(path)}: a gradient of dtype {g.dtype} (expected a {kind} floating-point dtype, "
            f"since the parameter's is {theta.dtype})"
        )
    if g.shape != theta.shape:
        raise ValueError(
            f"Invalid updates{keystr(path)}: a gradient of shape {g.shape} (expected the parameter's, {theta.shape})"
        )


def checked_mark(path: Any, mark: Any) -> Any:
    """Return one leaf of a mask: a plain boolean, or a 0-d boolean array that may be traced."""
    if isinstance(mark, int):
        return bool(mark)
    if str(getattr(mark, "dtype", "")) == "bool" and mark.shape == ():
        return mark
    raise TypeError(f"Invalid mask{keystr(path)}: {mark!r} (expected True, False or a 0-d boolean array)")


def as_leaf(x: Any) -> jax.Array:
    """Return a leaf (a JAX, NumPy or abstract array, or a Python number) as a JAX array."""
    return jnp.zeros_like(x) if isinstance(x, jax.ShapeDtypeStruct) else jnp.asarray(x, jnp.result_type(x))


def floating(value: Any) -> Any:
    """Convert integer arrays to floating point: `optax.inject_hyperparams` makes them from Python integers."""
    integral = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.integer)
    return value.astype(float) if integral else value


def scalar_dtype(params: Any) -> Any:
    """Return the widest real dtype in which a leaf of the parameters is updated."""
    return jnp.result_type(jnp.float32, *(jnp.finfo(as_leaf(p).dtype).dtype for p in jax.tree.leaves(params)))


def cond(due: Any, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """Return ``lax.cond``, or call one branch directly where the condition is concrete, to save the compilation."""
    if isinstance(due, Tracer):
        return jax.lax.cond(due, then, otherwise)
    return then() if due else otherwise()


def wide(x: jax.Array) -> jax.Array:
    """Return a leaf in the dtype it is computed in: float32 for narrower floats, unchanged otherwise."""
    return x.astype(jnp.float32) if is_narrow(x) else x


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """Round x to the precision of a dtype and keep x's own. XLA may drop a cast there and back, but not this."""
    if x.dtype == dtype:
        return x
    info = jnp.finfo(dtype)
    y = jax.lax.reduce_precision(x, exponent_bits=info.nexp, mantissa_bits=info.nmant)
    if dtype == jnp.float16:
        # reduce_precision flushes float16's subnormal numbers, whose spacing is 2^-24. Adding and subtracting a
        # constant with that spacing would round too, but XLA drops that.
        multiple = jnp.round(x * 2.0**24) * 2.0**-24
        # the value is the multiple, the derivative that of x, as for `reduce_precision`
        y = jnp.where(jnp.abs(x) < float(info.tiny), x + jax.lax.stop_gradient(multiple - x), y)
    return y


def in_dtype(algorithm: Any, dtype: Any) -> Any:
    """Return an algorithm with its traced hyperparameters cast to a dtype."""
    numbers = {f.name: getattr(algorithm, f.name) for f in fields(algorithm)}
    return replace(algorithm, **{name: as_scalar(x, dtype) for name, x in numbers.items() if x is not None})


def as_scalar(value: Any, dtype: Any) -> Any:
    return value if isinstance(value, float) else jnp.asarray(value, dtype)
