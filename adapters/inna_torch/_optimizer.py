"""The torch optimizer that runs an algorithm of `inna_core`."""

from collections import defaultdict
from collections.abc import Callable, MutableMapping
from itertools import chain
from typing import Any, ClassVar

import torch
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch.optim import Optimizer
from torch.optim.optimizer import _get_scalar_dtype, _use_grad_for_differentiable

from inna_core.algorithm import Algorithm
from inna_core.coefficients import without_rivals
from inna_torch._batch import entries_of, gather, tensor_names
from inna_torch._hyperparameters import FLAGS, completed, entry_names, hyperparameters, validate
from inna_torch._scaled_state import ScaledState
from inna_torch._tensors import TORCH, WIDER, Tensor, resolved, state_dtype
from inna_torch.paths import fused_sgd, select, single

DTYPES = (*WIDER, torch.float32, torch.float64, torch.complex64, torch.complex128)


class Elementwise(Optimizer):
    """An optimizer whose update of a parameter needs that parameter's gradient and state alone.

    A public class names its `algorithm`; everything else follows. The entries of a param group are the algorithm's
    hyperparameters, ``lr``, ``weight_decay`` and the flags of `inna_torch._hyperparameters`; those of a parameter's
    state are the fields of the algorithm's state, and ``compensation`` where the sum is compensated. Entries that
    users and other libraries add to either are left alone.

    `step` gathers each group into checked batches of one dtype, device and number of steps; asks the paths in order for
    a plan (`inna_torch.paths`); unscales gradients; and runs the plans. What can fail fails before the first plan runs.
    """

    algorithm: ClassVar[type[Algorithm]]
    mapping_type: ClassVar[Callable[..., MutableMapping[str, Any]]] = dict
    """Type of a parameter's state: `ScaledState` where the fused SGD kernel may scale the velocity."""

    _warned: set[str]

    def __init__(self, params: Any, **defaults: Any) -> None:
        entries = completed(self.algorithm, defaults)
        # leave out momentum=None: OneCycleLR and CyclicLR would try to cycle it
        super().__init__(params, {name: value for name, value in entries.items() if value is not None or name in FLAGS})
        self.state = defaultdict(self.mapping_type)
        self._warned = set()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with hyperparameters of their own.

        Args:
            param_group: ``params`` (tensors, or pairs of a name and a tensor), and any entry that differs from the
                defaults given to the constructor.

        Raises:
            TypeError: if a parameter is not a floating-point or complex tensor, or an entry has a wrong type.
            ValueError: if an entry is out of range, or a parameter is given twice.
            RuntimeError: if ``fused`` is True on a device that has no such kernel.
        """
        if isinstance(param_group, dict):
            own = without_rivals(self.algorithm, param_group)
            entries = completed(self.algorithm, {**self.defaults, **own})
            params = param_group["params"]
            if not isinstance(params, Tensor | set):  # torch itself refuses sets
                params = param_group["params"] = list(params)  # a generator can be read once only
            params = [params] if isinstance(params, Tensor) else params
            check_parameters([p[1] if isinstance(p, tuple) else p for p in params], entries["fused"])
            param_group.update({name: value for name, value in entries.items() if name != "params"})
        super().add_param_group(param_group)

    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one optimization step.

        Args:
            closure: reevaluates the model and returns the loss; called once, with gradients enabled.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: if a gradient is sparse, a parameter cannot be written in place, or a group is capturable but
                its parameters are not on an accelerator.
            TypeError, ValueError: if an entry of a param group has become invalid, or a gradient or a state does not
                fit its parameter. No parameter and no state has then changed, except that missing states may have been
                initialized.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            for group in self.param_groups:
                self._traced_step(group)
        elif get_eval_frame_callback() is None:
            self._step()
        else:  # after a graph break Dynamo would compile the callees
            TORCH.compiler.disable(self._step)()
        return loss

    def _step(self) -> None:
        steps = []
        for group in self.param_groups:
            hyper = hyperparameters(self.algorithm, group)
            for batch in gather(group["params"], self.state, hyper):
                plan = select.plan(batch, hyper, self._warned)
                if not hyper.differentiable and torch.is_grad_enabled():  # another group is differentiable
                    plan = torch.no_grad()(plan)
                steps.append((batch, plan))
                if batch.device.type != "cpu":
                    # torch's own check, under its newer or older name
                    check_capture = getattr(self, "_accelerator_graph_capture_health_check", None)
                    (check_capture or self._cuda_graph_capture_health_check)()
        for batch, plan in steps:
            plan()
            batch.count_step()

    # What torch.compile traces

    def _traced_step(self, group: dict[str, Any]) -> None:
        fields = self.algorithm.state_type._fields
        columns: list[list[Tensor]] = [[] for _ in range(3 + len(fields))]
        self._init_group(group, *columns)
        # Dynamo sets `capturable=True`, which may contradict other flags; tensors' values cannot be read
        paths = {"foreach": None, "fused": None, "compiled": False, "capturable": True, "differentiable": False}
        entries = {**group, **paths}
        hyper = validate(self.algorithm, *(entries[name] for name in entry_names(self.algorithm)))
        for p, g, *state, compensation in zip(*columns, strict=True):
            named = dict(zip(fields, state, strict=True))
            if compensation is not p:
                named["compensation"] = compensation
            g = resolved(g)
            if p.is_complex():
                p, g = torch.view_as_real(p), torch.view_as_real(g)
                named = {name: x if name == "step" else torch.view_as_real(x) for name, x in named.items()}
            single.update_in_place(hyper, p, g, named)
            if "step" in named:
                named["step"] += 1

    def _init_group(self, group: dict[str, Any], *columns: list[Tensor]) -> bool:
        """Fill lists with the parameters, gradients, fields of the state, and compensations of a group.

        torch.compile runs the method of this name once, as it is, instead of tracing it.
        """
        if group["compiled"] or group["differentiable"]:
            group["capturable"] = False  # Dynamo may have written it, and it excludes these
        hyper = hyperparameters(self.algorithm, group)
        gather(group["params"], self.state, hyper)
        for p in group["params"]:
            if p.grad is not None:
                # torch.compile supports plain dicts only; reading a ScaledState unscales its velocity
                state = dict(self.state[p])
                self.state[p] = entries_of(self.state[p])
                fields = self.algorithm.state_type._fields
                compensated = "compensation" in tensor_names(hyper, p.dtype)
                row = [p, p.grad, *(state[name] for name in fields), state["compensation"] if compensated else p]
                for column, x in zip(columns, row, strict=True):
                    column.append(x)
        return False

    # Saving and loading

    def state_dict(self) -> dict[str, Any]:
        """Return the state as a dict of plain dicts; see `torch.optim.Optimizer.state_dict`.

        Returns:
            ``state`` and ``param_groups``. Velocities are unscaled, whatever path the steps take.
        """

        def as_dicts(_: Any, packed: dict[str, Any]) -> None:
            packed["state"] = {k: dict(x) if type(x) is ScaledState else x for k, x in packed["state"].items()}

        with self.register_state_dict_post_hook(as_dicts, prepend=True):  # before the hooks of others
            return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state that `state_dict` returned.

        Args:
            state_dict: from an optimizer of the same class, with the same groups; their flags may differ. States that
                do not fit their parameters are refused by the next step.

        Raises:
            TypeError, ValueError: if the number of groups or parameters differs, or an entry of a group is invalid;
                nothing has changed then.
        """
        loaded: dict[str, Any] = {}

        def restore(_: Any) -> None:
            # torch casts loaded entries to the parameters' dtype, moves counters, and copies nothing else; undo that
            saved = chain.from_iterable(group["params"] for group in loaded["param_groups"])
            own = ((p, group["capturable"]) for group in self.param_groups for p in group["params"])
            for key, (p, capturable) in zip(saved, own, strict=True):
                original = loaded["state"].get(key, {})
                for name in (*self.algorithm.state_type._fields, "compensation"):
                    if name in original:
                        held = entries_of(self.state[p])
                        value = original[name] if isinstance(original[name], Tensor) else held[name]
                        held[name] = restored(name, value, p, capturable)

        with (
            self.register_load_state_dict_pre_hook(lambda _, final: loaded.update(final)),  # after those of others
            self.register_load_state_dict_post_hook(restore, prepend=True),  # before those of others
            torch.inference_mode(False),  # inference tensors could not be written by later steps
        ):
            super().load_state_dict(state_dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Called by `load_state_dict` and by unpickling; raising here leaves everything as it was.
        defaults = {**FLAGS, **state.get("defaults", getattr(self, "defaults", {}))}
        for group in state["param_groups"]:
            # defaults for flags that the saved groups lack must not contradict their other flags
            known = completed(self.algorithm, {**defaults, **FLAGS, **without_rivals(self.algorithm, group)})
            group.update({**known, **group})
        for held in state["state"].values() if "step" in self.algorithm.state_type._fields else ():
            if isinstance(held, dict) and isinstance(held.get("step"), int | float):  # as in old checkpoints
                held["step"] = torch.tensor(float(held["step"]), dtype=_get_scalar_dtype(), device="cpu")
        own = {
            key: self.mapping_type(held) if isinstance(key, Tensor) else held for key, held in state["state"].items()
        }
        super().__setstate__({**state, "state": defaultdict(self.mapping_type, own)})
        self.defaults, self._warned = defaults, set()


def restored(name: str, value: Any, p: Tensor, capturable: bool) -> Any:
    """Return a copy of a saved entry with the dtype and on the device where a step needs it."""
    if not isinstance(value, Tensor):
        return value  # the next step refuses it
    if name == "step":
        dtype = value.dtype if value.is_floating_point() else _get_scalar_dtype()
        return value.to(device=p.device if capturable else "cpu", dtype=dtype, copy=True)
    dtype = p.dtype if name == "compensation" else state_dtype(p.dtype)
    return value.to(device=p.device, dtype=dtype, copy=True)


def check_parameters(params: list[Any], fused: bool | None) -> None:
    """Refuse parameters that no step could update."""
    positions: dict[int, int] = {}
    for i, p in enumerate(params):
        if not isinstance(p, Tensor):
            continue  # torch itself refuses it
        if p.dtype not in DTYPES:
            raise TypeError(
                f"Invalid params: a tensor of dtype {p.dtype} (expected a real or complex floating-point dtype)"
            )
        if fused and p.device.type not in fused_sgd.DEVICES:
            raise RuntimeError(
                f"Invalid fused: True (expected False or None for parameters on {p.device}; torch has the kernels on "
                f"{', '.join(fused_sgd.DEVICES)})"
            )
        if positions.setdefault(id(p), i) != i:
            raise ValueError(
                f"Invalid params: the tensor at position {i}, of shape {tuple(p.shape)}, was given before (expected "
                "each parameter once)"
            )
