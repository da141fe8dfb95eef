"""The one torch shell: it turns an algorithm of `inna_core` into a `torch.optim.Optimizer`."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from itertools import chain, compress, repeat
from operator import attrgetter, is_, itemgetter
from typing import Any, ClassVar, NamedTuple

import array_api_compat.torch as xp
import torch
from torch.optim import Optimizer
from torch.optim.optimizer import _use_grad_for_differentiable

from inna_core._validation import checked_number
from inna_core.adamw_kernel import AdamWStep, adamw_step
from inna_core.algorithm import Algorithm
from inna_core.sgd_kernel import NesterovStep, nesterov_step
from inna_torch._kernel_state import KernelState
from inna_torch._lists import TORCH, blocks, flattens
from inna_torch._packed import Block, Packed, disjoint, packed
from inna_torch._single import NARROW, THETA, CompiledStep, compiled_step, compute_dtype, next_values, packed_numbers
from inna_torch._steps import (
    adamw_devices,
    adamw_kernel_step,
    alike,
    elements,
    flatten,
    foreach_step,
    gathering_pays,
    packed_adamw_kernel_step,
    sgd_devices,
    sgd_kernel,
    unflatten,
)

Tensor = torch.Tensor

PLAIN = {torch.nn.Parameter, torch.Tensor}
LAYOUT, SHAPE, DTYPE, DEVICE, IS_CPU = map(attrgetter, ("layout", "shape", "dtype", "device", "is_cpu"))
UNIT = attrgetter("unit")

CACHED = 2**17
"""Elements whose temporaries stay in a processor's cache."""
SMALL = 2**14
"""Elements of a tensor that are worked on in less time than it takes to enter compiled code, or start a kernel."""
FASTER = 128
"""How many times more elements an accelerator works on in the time that it takes to start it."""
ONE = torch.tensor(1.0, device="cpu")
IMMUTABLE = {float, int, bool, type(None)}

FLAGS = {
    "maximize": (True, False),
    "published_decay": (True, False),
    "kahan_sum": (True, False, None),
    "foreach": (True, False, None),
    "fused": (True, False, None),
    "compiled": (True, False),
    "capturable": (True, False),
    "differentiable": (True, False),
}
EXCLUSIVE = (
    ("fused", "foreach"),
    *(("compiled", other) for other in ("fused", "foreach", "capturable", "differentiable")),
    *(("differentiable", other) for other in ("fused", "foreach", "capturable")),
)
NEW_FLAGS = {"foreach": None, "fused": None, "compiled": False, "capturable": False, "differentiable": False}


class Leaf(NamedTuple):
    """A parameter that is to be updated, and what is needed for it.

    Attributes:
        p: the tensor to update: the parameter, or this rank's shard of it.
        grad: like it.
        owner: the parameter, which the state belongs to.
        state: of the parameter; None before its first step.
    """

    p: Tensor
    grad: Tensor
    owner: Tensor
    state: dict[str, Any] | None


class PlainStep(NamedTuple):
    """The core's function on one tensor after the other.

    Attributes:
        names: entries of a parameter's state that it updates, but for the count of steps.
    """

    names: tuple[str, ...]


class Bulk(NamedTuple):
    """One step of a fast path for many parameters.

    Attributes:
        columns: parameters, gradients, and the entries of the state other than the step.
        states: of the parameters.
        call: the kernel's arguments, the compiled function, or a plain step; None for the core's function on lists.
        known: the units of the velocities (SGD kernel), or the number of steps made before.
        packs: whether to put the states side by side in memory.
        pack: the states, if they are known to lie there.
    """

    columns: list[list[Tensor]]
    states: list[Any]
    call: Any
    known: float
    packs: bool = False
    pack: Block | None = None


class Alike(NamedTuple):
    """What the parameters of a group, their gradients and their states have in common.

    Attributes:
        arrays: the entries of the states other than the step.
        known: as in `Bulk`.
        dtype: of parameters and gradients.
        device: of all tensors but the counts of steps.
        contiguous: whether all are.
        pack: the states, if they lie side by side in memory.
    """

    arrays: list[list[Tensor]]
    known: float
    dtype: torch.dtype
    device: torch.device
    contiguous: bool
    pack: Block | None


class Kept(NamedTuple):
    """What was found of states of the SGD kernel that are alike; it refers to none of them.

    Attributes:
        states: their identities.
        velocities: identities of the velocities, as the kernel keeps them.
        shapes: of the velocities.
    """

    states: list[int]
    velocities: list[int]
    shapes: list[torch.Size]


@dataclass(frozen=True)
class Scalars:
    """The numbers of a param group, read where that costs nothing.

    Attributes:
        lr: step size, a float or a tensor whose value is left on its device.
        weight_decay: likewise.
        algorithm: with its hyperparameters, likewise.
        known: whether all of them are floats.
    """

    lr: Any
    weight_decay: Any
    algorithm: Algorithm
    known: bool


class Elementwise(Optimizer):
    """An optimizer whose update of a parameter needs that parameter's gradient and state alone.

    A public class names its `algorithm`; everything else follows. The entries of a param group are the algorithm's
    hyperparameters and ``lr``, ``weight_decay``, ``published_decay``, ``maximize``, ``kahan_sum``, ``foreach``,
    ``fused``, ``compiled``, ``capturable``, ``differentiable``; those of a parameter's state are the fields of the
    algorithm's state, and ``compensation`` where the sum is compensated.

    A step takes one of four paths for each parameter, all with the same state:

    * fused: torch's SGD or AdamW kernel, with the arguments that make INNA or INNAprop of it (`inna_core.sgd_kernel`,
      `inna_core.adamw_kernel`);
    * foreach: the core's function on lists of tensors, in place (`inna_torch._lists`);
    * compiled: the core's function on one tensor after the other, compiled into one loop over memory
      (`inna_torch._single`);
    * single: the core's function on one tensor after the other, which also serves torch.compile, autograd through the
      step, hyperparameters on an accelerator, narrow dtypes and compensated sums.

    Each works on many small tensors as on one where their states lie side by side in memory (`inna_torch._packed`).
    """

    algorithm: ClassVar[type[Algorithm]]
    kernel: ClassVar[str]
    """Torch's fused kernel that the fused path runs on: "sgd" or "adamw"."""
    small: ClassVar[float]
    """Elements of a tensor up to which that kernel is the faster one on a CPU, compiled code above."""

    _hyper: ClassVar[tuple[str, ...]]
    _fields: ClassVar[tuple[str, ...]]
    _arrays: ClassVar[tuple[str, ...]]
    _entries: ClassVar[Callable[[dict[str, Any]], tuple[Any, ...]]]

    # not a part of what is pickled or copied
    _checked: Mapping[int, tuple[tuple[Any, ...], Scalars]] = {}
    """By position of a group: its entries when they were last validated, and what was made of them."""
    _packs: tuple[Packed, ...] = ()
    """States of small tensors that lie side by side in memory."""
    _states: int = 0
    """How many there were after the last step."""
    _kept: Mapping[int, Kept] = {}
    """By position of a group: states that nobody but the kernel has written since they were looked at."""

    def __init_subclass__(cls) -> None:
        # names once and for all: torch.compile cannot trace dataclasses.fields
        cls._hyper = tuple(entry.name for entry in fields(cls.algorithm))  # type: ignore[arg-type]
        cls._fields = cls.algorithm.state_type._fields  # type: ignore[attr-defined]
        cls._arrays = tuple(name for name in cls._fields if name != "step")
        cls._entries = itemgetter("lr", "weight_decay", *cls._hyper, *FLAGS)

    def __init__(self, params: Any, **defaults: Any) -> None:
        self._checked_algorithm(defaults)
        super().__init__(params, defaults)
        # GradScaler then leaves unscaling and skipping to the step, as with torch's own fused optimizers.
        self._step_supports_amp_scaling = defaults["fused"] is True

    @classmethod
    def _checked_algorithm(cls, group: dict[str, Any]) -> Algorithm:
        """Return the algorithm of a param group, its entries validated."""
        for name in ("lr", "weight_decay"):
            # torch's schedulers accept one-element tensors of any rank; their value is left on its device, unread
            if not is_scalar_tensor(group[name]):
                checked_number(name, group[name])
        for name, allowed in FLAGS.items():
            if not any(group[name] is value for value in allowed):
                raise TypeError(f"Invalid {name}: {group[name]!r} (expected one of {', '.join(map(str, allowed))})")
        for name, other in EXCLUSIVE:
            if group[name] and group[other]:
                unset = " or None" if None in FLAGS[name] else ""
                raise ValueError(f"Invalid {name}: True (expected False{unset} where {other} is True)")
        return cls.algorithm(**{name: zero_dimensional(group[name]) for name in cls._hyper})  # type: ignore[arg-type]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with hyperparameters of their own.

        Args:
            param_group: ``params`` (tensors, or pairs of a name and a tensor), and any entry that differs from the
                defaults given to the constructor.

        Raises:
            TypeError: if a parameter is not a real floating-point tensor, or an entry has a wrong type.
            ValueError: if an entry is out of range, or a parameter is already in another group.
        """
        if isinstance(param_group, dict):
            self._checked_algorithm({**self.defaults, **param_group})
            params = param_group["params"]
            if not isinstance(params, torch.Tensor | set):  # torch itself refuses sets
                params = param_group["params"] = list(params)  # a generator can be read once only
            for p in [params] if isinstance(params, torch.Tensor) else params:
                check_parameter(p[1] if isinstance(p, tuple) else p)
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Called by `load_state_dict` and by unpickling; raising here leaves everything as it was.
        defaults = {**NEW_FLAGS, **state.get("defaults", getattr(self, "defaults", {}))}
        for group in state["param_groups"]:
            # a flag that the saved groups do not have yet is not to contradict those that they have
            for name, value in {**defaults, **NEW_FLAGS}.items():
                group.setdefault(name, value)
            self._checked_algorithm(group)
            for p in group["params"]:
                self._check_state(p, state["state"].get(p, {}))
        super().__setstate__(state)
        self._packs, self._kept = (), {}
        self.defaults = defaults
        self._step_supports_amp_scaling = defaults["fused"] is True

    def _check_state(self, p: Tensor, state: dict[str, Any]) -> None:
        expected = set(self._fields)
        if state and set(state) - {"compensation"} != expected:
            raise ValueError(
                f"Invalid state_dict: a parameter's state has {sorted(state)} (expected {sorted(expected)})"
            )
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"Invalid state_dict: {name} is {value!r} (expected a tensor)")
            if name != "step" and value.shape != p.shape:
                raise ValueError(
                    f"Invalid state_dict: {name} of shape {tuple(value.shape)} (expected {tuple(p.shape)}, as the "
                    "parameter)"
                )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state that `state_dict` returned; a state that does not fit changes nothing.

        Args:
            state_dict: from an optimizer of the same class, with the same groups and shapes; the paths that the two
                optimizers take need not be the same.

        Raises:
            ValueError: if groups, names, shapes or values do not fit.
        """
        final: dict[str, Any] = {}
        # Registered last, so that it sees what the user's own hooks made of the state.
        handle = self.register_load_state_dict_pre_hook(lambda _, loaded: final.update(loaded))
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        # torch casts state to the dtype of the parameter; ours is wider where the parameter is narrow. And for fused
        # groups it moves the count to the device, where powers of sigma round differently.
        saved = chain.from_iterable(group["params"] for group in final["param_groups"])
        own = ((p, group["capturable"]) for group in self.param_groups for p in group["params"])
        for index, (p, capturable) in zip(saved, own, strict=True):
            for name, value in final["state"].get(index, {}).items():
                if name == "step":
                    self.state[p][name] = value.to(
                        device=p.device if capturable else "cpu", dtype=torch.float32, copy=True
                    )
                elif name in self._fields and compute_dtype(p) != p.dtype:
                    self.state[p][name] = value.to(device=p.device, dtype=compute_dtype(p), copy=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as a dict of plain dicts; see `torch.optim.Optimizer.state_dict`.

        Returns:
            ``state`` and ``param_groups``. Velocities are the true ones, whatever path the steps take.
        """
        self._show_true_state()
        return super().state_dict()

    def _show_true_state(self) -> None:
        for p, state in self.state.items():
            if isinstance(state, KernelState):
                self.state[p] = dict(state)
        self._kept = {}
        self._keep_packs(none=True)

    def __getstate__(self) -> dict[str, Any]:
        self._show_true_state()
        return super().__getstate__()

    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one optimization step.

        Args:
            closure: reevaluates the model and returns the loss; called once, with gradients enabled.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: if a gradient is sparse, or a group is capturable but its parameters are not on an
                accelerator. Whatever is raised, no parameter and no state has changed.
            TypeError, ValueError: if an entry of a param group has become invalid, or a gradient or a state does not
                fit its parameter.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            for group in self.param_groups:
                self._traced_step(group)
        else:
            self._eager_step()
        return loss

    @TORCH._disable_dynamo  # a frame that torch.compile gave up on would otherwise have its callees compiled
    def _eager_step(self) -> None:
        check_capture = getattr(self, "_accelerator_graph_capture_health_check", None)
        (check_capture or self._cuda_graph_capture_health_check)()  # torch's own, under its newer or older name
        ready = []
        for index, group in enumerate(self.param_groups):
            scalars = self._known_scalars(index, group)
            bulks = self._at_once(index, group, scalars)
            leaves = [] if bulks else self._leaves(group)
            ready.append((group, scalars, bulks, leaves, list(self._paths(group, scalars, leaves))))
        grads = (
            [*(grad for bulk in bulks for grad in bulk.columns[1]), *(leaf.grad for leaf in leaves)]
            for _, _, bulks, leaves, _ in ready
        )
        if self._overflowed(grads):
            return
        before = self._packs
        for group, scalars, bulks, _, paths in ready:
            for bulk in bulks:
                self._run(bulk, group, scalars)
            for path, chosen in paths:
                path(group, scalars, chosen)
        anew = any(paths for *_, paths in ready)
        if anew:
            self._kept = {}
        if anew or self._packs is not before or len(self.state) != self._states:
            self._keep_packs()
            self._states = len(self.state)

    # What is validated before a step, with nothing changed yet

    def _known_scalars(self, index: int, group: dict[str, Any]) -> Scalars:
        """Return what `_scalars` does, without doing it again where every entry is the very object that it was."""
        entries = type(self)._entries(group)
        if index in self._checked:
            before, scalars = self._checked[index]
            if all(map(is_, entries, before)):
                return scalars
        scalars = self._scalars(group)
        if IMMUTABLE.issuperset(map(type, entries)):
            self._checked = {**self._checked, index: (entries, scalars)}
        return scalars

    def _scalars(self, group: dict[str, Any]) -> Scalars:
        algorithm = self._checked_algorithm(group)
        values = {name: group[name] for name in ("lr", "weight_decay", *self._hyper)}
        keep = group["capturable"] or group["differentiable"]
        if not keep and all(not isinstance(x, Tensor) or x.device.type == "cpu" for x in values.values()):
            # Reading a tensor in host memory costs little, and its value can be validated.
            read = {name: checked_number(name, float(x)) for name, x in values.items()}
            algorithm = self._checked_algorithm({**group, **read})
            return Scalars(read["lr"], read["weight_decay"], algorithm, known=True)
        known = not any(isinstance(x, Tensor) for x in values.values())
        return Scalars(group["lr"], group["weight_decay"], algorithm, known)

    def _at_once(self, index: int, group: dict[str, Any], scalars: Scalars) -> list[Bulk]:
        """Return the steps of a whole group, if all of it has a state and takes fast paths; nothing if it does not.

        A small parameter is updated in less time than it takes to look at it closely. So the questions are put to all
        tensors at once here; `_leaves` and `_paths` answer them one parameter after the other.
        """
        grads = [g for p in group["params"] if (g := p.grad) is not None]
        params = group["params"]
        if len(grads) < len(params):
            params = [p for p in params if p.grad is not None]
        if not params or group["capturable"] or group["differentiable"] or not scalars.known:
            return []
        compiles, automatic = group["compiled"], group["foreach"] is None and group["fused"] is None
        # neither torch's kernels nor its multi-tensor calls know of these
        special = group["kahan_sum"] or params[0].dtype in NARROW
        kernel = not special and self._may_use_kernel(group, scalars)
        lists = not special and self._may_use_lists(group, scalars) and (automatic or group["foreach"])
        if not (kernel or lists or (special and (compiles or automatic or group["foreach"] or group["fused"]))):
            return []
        in_units = kernel and self.kernel == "sgd"
        states: list[Any] = list(map(self.state.get, params))
        if set(map(type, states)) != ({KernelState} if in_units else {dict}) or not all(states):
            return []
        names = (*self._arrays, "compensation") if compensates(params[0], group) else self._arrays
        common = self._alike(index, params, grads, states, names, in_units)
        if common is None or not (common.contiguous or (lists and not (kernel or compiles))):
            return []
        arrays, known, dtype, device, contiguous, pack = common
        call = self._kernel_call(group, scalars, dtype, device.type, known) if kernel else None
        if kernel and call is None and (in_units or not lists):
            return []
        whole = Bulk([params, grads, *arrays], states, call, known)
        packs = special or (self.kernel == "adamw" and contiguous and (call is not None or gathering_pays(device.type)))
        if not (packs or compiles):
            return [whole]
        most = self._small(device, special) if kernel or packs else 1
        small = [] if pack is not None else [n <= most for n in map(torch.Tensor.numel, params)]
        few, *bulks = (whole,) if all(small) else (part_of(whole, small), part_of(whole, [not x for x in small]))
        few = few._replace(packs=packs and len(few.states) > 1, pack=pack)
        bulks = [few, *bulks] if few.states else bulks
        if special and not compiles:
            if group["fused"]:
                self._say_once("single")
            return [bulk._replace(call=PlainStep(names)) for bulk in bulks]
        if special and few.states and elements(few.columns[0]) < 2:  # too few for compiled code
            return []
        # without a kernel for them, small ones are compiled too: side by side they are large
        gathers = few.packs and call is None and elements(few.columns[0]) > 1
        which = [compiles and (special or bulk is not few or gathers) for bulk in bulks]
        if not any(which):
            return bulks
        compiled = self._compiled_call(group, scalars, dtype, device, names)
        return [bulk._replace(call=compiled if x else bulk.call) for bulk, x in zip(bulks, which, strict=True)]

    def _alike(
        self,
        index: int,
        params: list[Any],
        grads: list[Any],
        states: list[Any],
        names: tuple[str, ...],
        in_units: bool,
    ) -> Alike | None:
        """Return what all of these tensors have in common, or None if they are not plain, valid and alike."""
        counts = "step" in self._fields
        if set(map(len, states)) != {len(names) + counts}:
            return None
        raw = dict.__getitem__  # past KernelState's own, which would convert its velocity to show it
        pack = self._block(states, names)
        kept = self._kept.get(index) if in_units else None
        try:
            slots: dict[str, list[Any]] = {
                name: pack.entries[name] if pack else list(map(raw, states, repeat(name))) for name in names
            }
            steps: list[Any] = list(map(raw, states, repeat("step"))) if counts and not pack else []
        except KeyError:
            return None
        if not set(map(type, steps)) <= PLAIN:
            return None
        held: set[Any] = set(map(UNIT, states)) if in_units else set(map(float, steps or [0.0]))
        columns, shapes = list(slots.values()), None
        if pack:  # what the states hold is known, and the memory stands for it
            slots, shapes = {name: [pack.memory[name]] for name in names}, pack.shapes
            held = set(pack.memory["step"].tolist()) if counts else held
        elif kept and None not in held and kept[:2] == (list(map(id, states)), list(map(id, columns[0]))):
            # what the kernel has held since the last step nobody else has touched, and one stands for all
            slots, shapes = {"velocity": columns[0][:1]}, kept.shapes
        own = [*params, *grads, *slots.get("compensation", [])]
        wide = list(chain.from_iterable(x for name, x in slots.items() if name != "compensation"))
        tensors = own + wide
        if len(held) > 1 or None in held or not set(map(type, tensors)) <= PLAIN:
            return None
        dtype, device = params[0].dtype, params[0].device
        on_device = all(map(IS_CPU, tensors)) or set(map(DEVICE, tensors)) == {device}
        if shapes is None:
            shapes, shaped = list(map(SHAPE, params)), [grads, *columns]
        else:
            shaped = [params, grads]
        if not (
            on_device
            and set(map(LAYOUT, grads)) == {torch.strided}
            and set(map(DTYPE, own)) == {dtype}
            and set(map(DTYPE, wide)) == {compute_dtype(params[0])}
            and all(list(map(SHAPE, column)) == shapes for column in shaped)
        ):
            return None
        contiguous = all(map(torch.Tensor.is_contiguous, tensors))
        if in_units and contiguous:
            self._kept = {**self._kept, index: Kept(list(map(id, states)), list(map(id, columns[0])), shapes)}
        return Alike(columns, held.pop(), dtype, device, contiguous, pack)

    def _leaves(self, group: dict[str, Any]) -> list[Leaf]:
        leaves, state_of = [], self.state.get
        if group["capturable"] and not torch.compiler.is_compiling():
            for p in group["params"]:
                if p.grad is not None and p.device.type == "cpu":
                    raise RuntimeError("Invalid capturable: True (expected False for parameters on cpu)")
        for owner in group["params"]:
            grad = owner.grad
            if grad is None:
                continue
            if grad.layout is not torch.strided:
                raise RuntimeError(
                    f"{type(self).__name__} does not support sparse gradients (layout {grad.layout} of grad)"
                )
            p = owner
            if type(owner) not in PLAIN or type(grad) not in PLAIN:
                p, grad = local(owner), local(like_placed(grad, owner))
            leaf = Leaf(p, grad, owner, state_of(owner))
            self._check_leaf(leaf, group)
            leaves.append(leaf)
        return leaves

    def _check_leaf(self, leaf: Leaf, group: dict[str, Any]) -> None:
        p, grad, owner, state = leaf
        shape, device = p.shape, p.device
        if grad.shape != shape:
            raise ValueError(f"Invalid grad: shape {tuple(grad.shape)} (expected {tuple(shape)}, as the parameter)")
        if grad.device != device:
            raise ValueError(f"Invalid grad: on {grad.device} (expected {device}, as the parameter)")
        if not grad.is_floating_point():
            raise TypeError(f"Invalid grad: dtype {grad.dtype} (expected a real floating-point dtype)")
        if not state:
            return
        shape, dtype = shape if p is owner else owner.shape, compute_dtype(p)
        # past KernelState, which would convert its velocity to show it
        missing = set(self._fields) - dict.keys(state)
        if missing:
            raise ValueError(f"Invalid state: {sorted(state)} (expected {sorted(missing)} too)")
        for name, value in dict.items(state):
            if not isinstance(value, Tensor):
                raise TypeError(f"Invalid state: {name} is {value!r} (expected a tensor)")
            if name == "step":
                continue
            if value.shape != shape or value.device != device:
                raise ValueError(
                    f"Invalid state: {name} of shape {tuple(value.shape)} on {value.device} "
                    f"(expected {tuple(shape)} on {device}, as the parameter)"
                )
            expected = p.dtype if name == "compensation" else dtype
            if value.dtype != expected:
                raise TypeError(
                    f"Invalid state: {name} of dtype {value.dtype} (expected {expected} beside a {p.dtype} parameter)"
                )

    def _overflowed(self, grads: Iterable[list[Tensor]]) -> bool:
        """Return whether GradScaler found an infinite gradient; otherwise take its scale off the gradients."""
        found, scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if found is not None and bool(found):
            return True
        if scale is not None:
            inverse = 1.0 / float(scale)
            for grad in chain.from_iterable(grads):
                grad.mul_(inverse)
        return False

    # Which path

    def _paths(self, group: dict[str, Any], scalars: Scalars, leaves: list[Leaf]) -> Iterator[tuple[Any, list[Leaf]]]:
        automatic = group["foreach"] is None and group["fused"] is None
        many = not group["differentiable"] and (automatic or group["foreach"] or group["fused"])
        if not (many or group["compiled"]):
            yield self._single_path, leaves
            return
        lists = many and self._may_use_lists(group, scalars)
        kernel = many and self._may_use_kernel(group, scalars)
        buckets: dict[Any, list[Leaf]] = {}
        for leaf in leaves:
            p, grad, _, state = leaf
            dtype, unit, takes = p.dtype, None, "single"
            if type(p) in PLAIN and dtype == grad.dtype:
                if lists and dtype not in NARROW:
                    takes = "foreach"
                    if kernel and self._lies_flat(leaf, self._arrays):
                        takes, unit = "kernel", getattr(state, "unit", None)
                if (
                    group["compiled"]
                    and scalars.known
                    and p.numel() > (self._small(p.device) if takes == "kernel" else 1)
                ):
                    names = (*self._arrays, "compensation") if compensates(p, group) else self._arrays
                    if self._lies_flat(leaf, names):
                        takes, unit = "compiled", names
            key = takes, dtype, p.device, unit
            if key in buckets:
                buckets[key].append(leaf)
            else:
                buckets[key] = [leaf]
        for (takes, dtype, device, unit), chosen in buckets.items():
            path = self._single_path if takes == "single" else self._foreach_path
            call = self._kernel_call(group, scalars, dtype, device.type, unit) if takes == "kernel" else None
            if takes == "compiled":
                path = partial(self._compiled_path, self._compiled_call(group, scalars, dtype, device, unit))
            elif call is not None:
                path = partial(self._sgd_path, call) if isinstance(call, NesterovStep) else self._adamw_path
            elif group["fused"]:
                self._say_once("single" if takes == "single" else "foreach")
            yield path, chosen

    def _small(self, device: torch.device, special: bool = False) -> float:
        """Return the elements of a tensor up to which the kernel, or copying several, beats compiled code."""
        return (SMALL if special else self.small) * (1 if device.type == "cpu" else FASTER)

    def _may_use_lists(self, group: dict[str, Any], scalars: Scalars) -> bool:
        counted = group["capturable"] and "step" in self._fields
        return scalars.known and not (group["kahan_sum"] or group["differentiable"] or counted)

    def _may_use_kernel(self, group: dict[str, Any], scalars: Scalars) -> bool:
        chosen = group["fused"] or (group["fused"] is None and group["foreach"] is None)
        barred = any(group[name] for name in ("capturable", "differentiable", "published_decay", "kahan_sum"))
        return bool(chosen) and scalars.known and not barred

    def _lies_flat(self, leaf: Leaf, names: tuple[str, ...]) -> bool:
        """Return whether gradient and state fill memory as the parameter does, so that nobody need look at strides."""
        p, grad, _, state = leaf
        contiguous = p.is_contiguous()
        if not (grad.is_contiguous() if contiguous else flattens(p, p) and flattens(grad, p)):
            return False
        for name in names:
            x = dict.get(state or {}, name)  # past KernelState's own, which would convert its velocity to show it
            if x is not None:
                x = x if type(x) in PLAIN else local(x)
                if not (x.is_contiguous() if contiguous else flattens(x, p)):
                    return False
        return True

    def _kernel_call(
        self, group: dict[str, Any], scalars: Scalars, dtype: torch.dtype, device: str, known: float | None
    ) -> NesterovStep | AdamWStep | None:
        """Return the kernel's arguments, or None where it is missing or cannot make the step accurately.

        `known` is what `Bulk` calls so; with None for it, AdamW's are those of a first step.
        """
        if device not in {"sgd": sgd_devices, "adamw": adamw_devices}[self.kernel]():
            return None
        algorithm: Any = scalars.algorithm
        if self.kernel == "adamw":
            return adamw_step(
                scalars.lr,
                known or 0.0,
                alpha=algorithm.alpha,
                beta=algorithm.beta,
                sigma=algorithm.sigma,
                eps=algorithm.eps,
                weight_decay=scalars.weight_decay,
                maximize=group["maximize"],
            )
        told = 2.0**-24 if device != "cpu" and dtype == torch.float32 else 2.0**-53
        eps = torch.finfo(dtype).eps
        call = nesterov_step(scalars.lr, alpha=algorithm.alpha, beta=algorithm.beta, eps=eps, unit=known, told=told)
        # on accelerators the kernel demands a positive momentum, so no alpha * lr of 1 or more
        return call if call is None or device == "cpu" or call.momentum > 0 else None

    def _compiled_call(
        self, group: dict[str, Any], scalars: Scalars, dtype: torch.dtype, device: torch.device, names: tuple[str, ...]
    ) -> CompiledStep:
        flags = group["published_decay"], group["maximize"]
        return compiled_step(type(scalars.algorithm), names, dtype, device, *flags)

    def _say_once(self, takes: str) -> None:
        said: set[str] = self.__dict__.setdefault("_said", set())
        if takes not in said:
            said.add(takes)
            warnings.warn(
                f"fused=True, but the {takes} path is taken for some parameters: torch's kernel needs float32 or "
                "float64 parameters and gradients with the same dense memory layout, on a device that has it, and an "
                "lr that is not large against beta nor close to 1 / alpha",
                stacklevel=5,
            )

    # The paths

    def _run(self, bulk: Bulk, group: dict[str, Any], scalars: Scalars) -> None:
        runs = {
            NesterovStep: self._run_sgd,
            AdamWStep: self._run_adamw,
            CompiledStep: self._run_compiled,
            PlainStep: self._run_plain,
        }
        run = runs.get(type(bulk.call), self._run_lists)
        names = bulk.call.names if isinstance(bulk.call, CompiledStep | PlainStep) else self._arrays
        params, grads, *_ = bulk.columns
        # without the kernel parameters are copied to one place and back, and one update may not be another's input
        packs = bulk.packs and (isinstance(bulk.call, AdamWStep) or disjoint([*params, *grads]))
        pack = (bulk.pack or self._packed(bulk, names)) if packs else None
        if pack is None:
            run(bulk, group, scalars)
            if "step" in self._fields:
                steps = [state["step"] for state in bulk.states]
                # a number would be made a tensor for each of them; fake tensors know numbers only
                TORCH._foreach_add_(steps, ONE if type(steps[0]) in PLAIN else 1.0)
            return
        memory = [pack.memory[name] for name in names]
        if isinstance(bulk.call, AdamWStep):
            algorithm: Any = scalars.algorithm
            packed_adamw_kernel_step(bulk.call, algorithm.sigma, params, grads, memory, pack.parts)
        else:
            for some, where in pack.parts:
                theta, grad = flatten(params[some]), flatten(grads[some])
                run(bulk._replace(columns=[[theta], [grad], *([x[where]] for x in memory)]), group, scalars)
                TORCH._foreach_copy_(params[some], unflatten(theta, params[some]))
        if "step" in pack.memory:
            pack.memory["step"].add_(1)

    def _sgd_path(self, call: NesterovStep, group: dict[str, Any], scalars: Scalars, leaves: list[Leaf]) -> None:
        states = [self._kernel_state(leaf, group, scalars.algorithm) for leaf in leaves]
        buffers = [local(state.buffer(call.start)) for state in states]
        columns = [[leaf.p for leaf in leaves], [leaf.grad for leaf in leaves], buffers]
        self._run(Bulk(columns, states, call, call.start), group, scalars)

    def _run_sgd(self, bulk: Bulk, group: dict[str, Any], scalars: Scalars) -> None:
        call, params = bulk.call, bulk.columns[0]
        if scalars.weight_decay:
            # Decoupled decay; the kernel's own acts through the gradient, and so on the velocity.
            TORCH._foreach_mul_(params, 1 - scalars.lr * scalars.weight_decay)
        sgd_kernel(
            *(bulk.columns if params[0].is_cpu else alike(bulk.columns)),
            momentum=call.momentum,
            lr=call.lr,
            dampening=call.dampening,
            nesterov=call.nesterov,
            maximize=call.maximize != group["maximize"],
        )
        if call.unit != bulk.known:
            for state in bulk.states:
                state.unit = call.unit

    def _adamw_path(self, group: dict[str, Any], scalars: Scalars, leaves: list[Leaf]) -> None:
        for k, columns, states in self._by_step(group, scalars, leaves, self._arrays):
            call = self._kernel_call(group, scalars, columns[0][0].dtype, columns[0][0].device.type, k)
            self._run(Bulk(columns, states, call, k), group, scalars)

    def _run_adamw(self, bulk: Bulk, group: dict[str, Any], scalars: Scalars) -> None:
        algorithm: Any = scalars.algorithm
        adamw_kernel_step(bulk.call, algorithm.sigma, bulk.columns)

    def _block(self, states: list[Any], names: tuple[str, ...]) -> Block | None:
        """Return states, with these entries besides the count of steps, as they lie side by side, if they do."""
        names = (*names, "step") if "step" in self._fields else names
        return next((block for pack in self._packs if (block := pack.block(states, names))), None)

    def _packed(self, bulk: Bulk, names: tuple[str, ...]) -> Block | None:
        """Return the states of a step as they lie side by side; they are put there if they do not yet and can be."""
        if block := self._block(bulk.states, names):
            return block
        made = packed(bulk.columns[0], bulk.states, (*names, "step") if "step" in self._fields else names)
        if made is None:
            return None
        self._packs = (*self._packs, made)
        return self._block(bulk.states, names)

    def _keep_packs(self, none: bool = False) -> None:
        """Let go of what lies side by side but is not in use as a whole any more: what is left would hold all of it."""
        own = {id(state): state for state in self.state.values()}
        kept = []
        for pack in self._packs:
            states = [own.get(i) for i in pack.states]
            sound = not none and all(state is not None and len(state) == len(pack.places) for state in states)
            if sound and pack.block(states, tuple(pack.places)):
                kept.append(pack)
            else:
                pack.unpack(states)
        self._packs = tuple(kept)

    def _by_step(
        self, group: dict[str, Any], scalars: Scalars, leaves: list[Leaf], names: tuple[str, ...]
    ) -> list[tuple[float, list[list[Tensor]], list[dict[str, Any]]]]:
        """Return, for every number of steps made so far, that number, the columns of tensors that it applies to
        (parameters, gradients, these entries of the state), and the states."""
        counts = "step" in self._fields
        found: dict[float, list[tuple[Leaf, dict[str, Any]]]] = {}
        for leaf in leaves:
            stored = self._stored_state(leaf.owner, group, scalars.algorithm)
            found.setdefault(float(stored["step"]) if counts else 0.0, []).append((leaf, stored))
        return [
            (
                k,
                [
                    [leaf.p for leaf, _ in chosen],
                    [leaf.grad for leaf, _ in chosen],
                    *([local(stored[name]) for _, stored in chosen] for name in names),
                ],
                [stored for _, stored in chosen],
            )
            for k, chosen in found.items()
        ]

    def _kernel_state(self, leaf: Leaf, group: dict[str, Any], algorithm: Algorithm) -> KernelState:
        state = leaf.state
        if type(state) is KernelState and state:
            dict.pop(state, "compensation", None)  # past `KernelState.pop`, which would convert the velocity
            return state
        if state:
            state.pop("compensation", None)
            made = KernelState(state)
        else:
            made = KernelState(self._stored_state(leaf.owner, group, algorithm))
            made.at_rest = True
        self.state[leaf.owner] = made
        return made

    def _foreach_path(self, group: dict[str, Any], scalars: Scalars, leaves: list[Leaf]) -> None:
        for k, columns, states in self._by_step(group, scalars, leaves, self._arrays):
            self._run(Bulk(columns, states, None, k), group, scalars)

    def _run_lists(self, bulk: Bulk, group: dict[str, Any], scalars: Scalars) -> None:
        foreach_step(
            scalars.algorithm,
            bulk.columns,
            bulk.known,
            scalars.lr,
            scalars.weight_decay,
            published=group["published_decay"],
            maximize=group["maximize"],
        )

    def _compiled_path(self, call: CompiledStep, group: dict[str, Any], scalars: Scalars, leaves: list[Leaf]) -> None:
        for k, columns, states in self._by_step(group, scalars, leaves, call.names):
            self._run(Bulk(columns, states, call, k), group, scalars)

    def _run_compiled(self, bulk: Bulk, group: dict[str, Any], scalars: Scalars) -> None:
        params, grads, *others = bulk.columns
        numbers = packed_numbers(scalars.algorithm, bulk.known, scalars.lr, scalars.weight_decay, params[0].device)
        # a graph knows which of its inputs require gradients
        columns = [[p.detach() for p in params], [g.detach() for g in grads], *others]
        flat = [[x if x.ndim == 1 else x.as_strided((x.numel(),), (1,)) for x in column] for column in columns]
        bulk.call.run(zip(repeat(numbers, len(params)), *flat, strict=True))

    def _single_path(self, group: dict[str, Any], scalars: Scalars, leaves: list[Leaf]) -> None:
        for leaf in leaves:
            stored = self._stored_state(leaf.owner, group, scalars.algorithm)
            state = {name: local(value) for name, value in stored.items()}
            names = tuple(name for name in state if name != "step")
            in_pieces = leaf.p.is_cpu and leaf.p.numel() > CACHED and not group["differentiable"]
            plain = type(leaf.p) in PLAIN and type(leaf.grad) in PLAIN
            if not (in_pieces and plain and self._lies_flat(leaf, names)):
                stored.update(self._single(leaf.p, leaf.grad, state, group, scalars))
                continue
            columns = [[leaf.p], [leaf.grad], *([state[name]] for name in names)]
            self._run_plain(Bulk(columns, [], PlainStep(names), float(state.get("step", 0.0))), group, scalars)
            if "step" in state:  # once, not for each piece
                state["step"].add_(1)

    def _run_plain(self, bulk: Bulk, group: dict[str, Any], scalars: Scalars) -> None:
        for row in zip(*bulk.columns, strict=True):
            whole = [[x] for x in row]
            for (p,), (g,), *columns in blocks(whole, CACHED) if row[0].is_cpu else [whole]:
                entries = {name: x for name, (x,) in zip(bulk.call.names, columns, strict=True)}
                if "step" in self._fields:
                    entries["step"] = torch.tensor(bulk.known, dtype=torch.float32, device="cpu")
                self._single(p, g, entries, group, scalars)

    def _single(
        self, p: Tensor, g: Tensor, stored: dict[str, Tensor], group: dict[str, Any], scalars: Scalars
    ) -> dict[str, Tensor]:
        """Update one parameter; return the entries of its state that are new tensors."""
        algorithm: Any = scalars.algorithm
        dtype = compute_dtype(p)
        new = next_values(
            type(algorithm)(**{name: scalar(getattr(algorithm, name), p, dtype) for name in self._hyper}),
            # autograd through the step needs the old parameter after it was overwritten
            p.clone() if group["differentiable"] else p,
            g,
            stored,
            scalar(scalars.lr, p, dtype),
            scalar(scalars.weight_decay, p, dtype),
            published=group["published_decay"],
            maximize=group["maximize"],
        )
        if group["differentiable"]:
            p.copy_(new.pop(THETA))
            if "compensation" in new:
                stored["compensation"].copy_(new.pop("compensation"))
            return {name: value.to(stored[name].dtype) for name, value in new.items()}
        targets = [p if name == THETA else stored[name] for name in new]
        if torch.compiler.is_compiling():
            # after one multi-tensor copy inductor computes the later values from what the first has overwritten
            for target, x in zip(targets, new.values(), strict=True):
                target.copy_(x)
        else:
            torch._foreach_copy_(targets, list(new.values()))
        return {}

    def _traced_step(self, group: dict[str, Any]) -> None:
        columns: list[list[Tensor]] = [[] for _ in range(3 + len(self._fields))]
        self._init_group(group, *columns)
        scalars = Scalars(group["lr"], group["weight_decay"], self._checked_algorithm(group), known=False)
        for p, g, *state in zip(*columns, strict=True):
            *values, compensation = state
            stored = dict(zip(self._fields, values, strict=True))
            if compensates(p, group):
                stored["compensation"] = compensation
            self._single(p, g, stored, group, scalars)

    def _init_group(self, group: dict[str, Any], *columns: list[Tensor]) -> bool:
        """Fill lists with the parameters, gradients, fields of the state, and compensations of a group.

        torch.compile runs the method of this name once, as it is, instead of tracing it.
        """
        self._show_true_state()
        scalars = self._scalars(group)
        for leaf in self._leaves(group):
            stored = self._stored_state(leaf.owner, group, scalars.algorithm)
            row = [leaf.owner, leaf.owner.grad, *(stored[name] for name in self._fields)]
            row.append(stored.get("compensation", row[2]))  # no list may have a gap
            for column, x in zip(columns, row, strict=True):
                column.append(x)  # type: ignore[arg-type]
        return False

    def _stored_state(self, p: Tensor, group: dict[str, Any], algorithm: Algorithm) -> dict[str, Any]:
        """Return the state of a parameter, made when it is first asked for."""
        stored = self.state[p]
        if not stored:
            stored.update(algorithm.init(p.detach().to(compute_dtype(p)), xp=xp)._asdict())
            if "step" in stored:
                # where torch keeps it: counting on the device would cost a kernel
                device = p.device if group["capturable"] else "cpu"
                stored["step"] = torch.zeros((), dtype=torch.float32, device=device)
        if not compensates(p, group):
            stored.pop("compensation", None)
        elif "compensation" not in stored:
            stored["compensation"] = torch.zeros_like(p, requires_grad=False)
        return stored


def part_of(bulk: Bulk, which: list[bool]) -> Bulk:
    """Return the part of a step that these parameters have in it."""
    columns = [list(compress(column, which)) for column in bulk.columns]
    return bulk._replace(columns=columns, states=list(compress(bulk.states, which)))


def check_parameter(p: Any) -> None:
    if isinstance(p, torch.Tensor) and not p.is_floating_point():
        raise TypeError(
            f"Invalid params: a tensor of dtype {p.dtype} (expected a real floating-point dtype; "
            "optimize torch.view_as_real(z) in place of a complex z)"
        )


def compensates(p: Tensor, group: dict[str, Any]) -> bool:
    return compute_dtype(p) != p.dtype if group["kahan_sum"] is None else group["kahan_sum"]


def is_scalar_tensor(x: Any) -> bool:
    return isinstance(x, Tensor) and x.numel() == 1


def zero_dimensional(x: Any) -> Any:
    return x.reshape(()) if is_scalar_tensor(x) else x


def scalar(value: Any, p: Tensor, dtype: torch.dtype) -> Any:
    """Return a hyperparameter as the core takes it: a float, or a 0-d tensor of the dtype that p's device can read."""
    if not isinstance(value, Tensor):
        return float(value)
    value = value.reshape(()).to(dtype)
    return value if value.device.type == "cpu" else value.to(p.device)


def local(x: Tensor) -> Tensor:
    """Return this rank's part of a distributed tensor, sharing its memory, and any other tensor as it is."""
    return x if type(x) in PLAIN or not hasattr(x, "to_local") else x.to_local()  # type: ignore[operator]


def like_placed(grad: Any, p: Any) -> Any:
    """Return a gradient distributed over the ranks as its parameter is."""
    if hasattr(p, "placements") and hasattr(grad, "placements") and grad.placements != p.placements:
        return grad.redistribute(placements=p.placements)
    return grad
