"""Energy, velocity and sharpness of a training run, sampled by a hook of the optimizer."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from array_api_compat import torch as xp
from torch._C._dynamo.eval_frame import get_eval_frame_callback

from inna_core.monitor import (
    EVERY,
    ITERATIONS,
    NAN,
    SHARPNESS_EVERY,
    Metrics,
    check_periods,
    largest_eigenvalue,
    measured,
    velocity_squares,
)
from inna_torch._hyperparameters import hyperparameters
from inna_torch._optimizer import Elementwise
from inna_torch._scaled_state import ScaledState
from inna_torch._tensors import TORCH, Tensor, Tensors
from inna_torch.newton.derivatives import eager_and_differentiable_twice, gradients_or_zeros


class Monitor:
    """Samples energy, velocity and sharpness of a run every so many steps, without changing the run.

    It is a post-hook of the optimizer's step. Parameters, gradients, state, the model's buffers (running statistics)
    and torch's random number generators stay as they are, so the steps are the same, bit for bit.

    Args:
        optimizer: `INNA` or `INNAprop`.
        model: the module that `loss_fn` calls; its buffers are restored after each sample.
        loss_fn: closure that returns the loss of the model on a batch of your choice, a tensor with one element, and
            does not call ``backward``. Without it only the velocity and the stable sharpness are measured.
        every: steps between two samples.
        sharpness_every: steps between two samples with the sharpness, a multiple of `every`.
        iterations: products of the Hessian with a vector for one estimate of the sharpness; each costs about two
            backward passes.
        on_sample: called with each `inna_core.monitor.Metrics`, to log it.

    Attributes:
        history: the samples, in order; `inna_core.monitor.plot` draws them.
        step: number of steps seen; set it to resume a run.

    Energy, sharpness and stable sharpness are those of all parameters that have been updated and are not frozen. Where
    param groups differ in lr, alpha, beta, momentum, lead or maximize, no common formula holds, and all but velocity
    and loss are NaN.

    Raises:
        TypeError: if an argument has a wrong type.
        ValueError: if a number is out of range, or loss_fn or model is given without the other.

    Reference: the equations are in `inna_core.monitor`.

    Example:
        >>> import torch
        >>> from inna_torch import INNA
        >>> model, x = torch.nn.Linear(2, 1), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> optimizer = INNA(model.parameters(), lr=0.1, momentum=0.9)
        >>> loss_fn = lambda: model(x).square().mean()
        >>> with Monitor(optimizer, model, loss_fn, every=10, sharpness_every=10) as monitor:
        ...     for _ in range(20):
        ...         optimizer.zero_grad()
        ...         loss_fn().backward()
        ...         optimizer.step()
        >>> [(sample.step, sample.stability_ratio < 1) for sample in monitor.history]
        [(10, True), (20, True)]
    """

    def __init__(
        self,
        optimizer: Elementwise,
        model: torch.nn.Module | None = None,
        loss_fn: Callable[[], Tensor] | None = None,
        *,
        every: int = EVERY,
        sharpness_every: int = SHARPNESS_EVERY,
        iterations: int = ITERATIONS,
        on_sample: Callable[[Metrics], Any] | None = None,
    ) -> None:
        if not isinstance(optimizer, Elementwise) or not hasattr(optimizer.algorithm, "coefficients"):
            raise TypeError(f"Invalid optimizer: {type(optimizer).__name__} (expected inna_torch.INNA or INNAprop)")
        if model is not None and not isinstance(model, torch.nn.Module):
            raise TypeError(f"Invalid model: {type(model).__name__} (expected a torch.nn.Module)")
        if loss_fn is not None and not callable(loss_fn):
            raise TypeError(f"Invalid loss_fn: {loss_fn!r:.80} (expected a function without arguments)")
        for name, given, other in (("model", model, loss_fn), ("loss_fn", loss_fn, model)):
            if given is None and other is not None:
                raise ValueError(f"Invalid {name}: None (expected both model and loss_fn, or neither)")
        if any(hasattr(p, "to_local") for group in optimizer.param_groups for p in group["params"]):
            raise NotImplementedError("Invalid optimizer: it has sharded parameters, DTensors (expected whole tensors)")
        if on_sample is not None and not callable(on_sample):
            raise TypeError(f"Invalid on_sample: {on_sample!r:.80} (expected a function of one sample)")
        check_periods(every, sharpness_every, iterations)
        self.optimizer, self.model, self.loss_fn, self.on_sample = optimizer, model, loss_fn, on_sample
        self.every, self.sharpness_every, self.iterations = every, sharpness_every, iterations
        self.step = 0
        self.history: list[Metrics] = []
        self._handle = optimizer.register_step_post_hook(self._hook)

    def remove(self) -> None:
        """Remove the hook; the history stays."""
        self._handle.remove()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _hook(self, *_: object) -> None:
        if torch.compiler.is_compiling() or get_eval_frame_callback() is not None:
            TORCH.compiler.disable(self._after_step)()  # a graph break
        else:
            self._after_step()

    def _after_step(self) -> None:
        self.step += 1
        if self.step % self.every == 0:
            self.history.append(self.sample())
            if self.on_sample is not None:
                self.on_sample(self.history[-1])

    def sample(self) -> Metrics:
        """Measure now and return the sample, which is not added to `history`.

        The sharpness is measured only if `step` is a multiple of `sharpness_every`.

        Returns:
            `inna_core.monitor.Metrics` of floats; NaN for what was not measured.

        Raises:
            ValueError: if loss_fn does not return a real tensor with one element.
        """
        groups = [(hyperparameters(self.optimizer.algorithm, g), g["params"]) for g in self.optimizer.param_groups]
        settings = {(h.algorithm.coefficients(float(h.lr)), float(h.lr), h.maximize) for h, _ in groups}
        hyper, alike = groups[0][0], len(settings) == 1
        moved = [
            (p, h.algorithm, real_state(h.algorithm, self.optimizer.state[p]))
            for h, params in groups
            for p in params
            if p.requires_grad and "velocity" in self.optimizer.state.get(p, ())
        ]
        with torch.inference_mode(False), torch.no_grad():
            pairs = [velocity_squares(algorithm, [state], xp) for _, algorithm, state in moved]
            plain, scaled = (sum(float(pair[i]) for pair in pairs) for i in range(2))
            loss = sharpness = NAN
            if self.model is not None and self.loss_fn is not None:
                with undisturbed(self.model, [p for p, _, _ in moved]), eager_and_differentiable_twice():
                    if alike and moved and self.step % self.sharpness_every == 0:
                        loss, sharpness = loss_and_sharpness(self.loss_fn, moved, hyper.maximize, self.iterations)
                    else:
                        loss = float(checked_loss(self.loss_fn()).detach())
            signed = -loss if hyper.maximize else loss
            numbers = torch.tensor(
                [float(hyper.lr), plain, scaled, signed, sharpness], dtype=torch.float64, device="cpu"
            )
            lr, plain, scaled, signed, sharpness = numbers.unbind()
            found = measured(hyper.algorithm, self.step, lr, (plain, scaled), signed, sharpness, xp)
        numbers = Metrics(self.step, *map(float, found[1:]))._replace(loss=loss)
        return numbers if alike else Metrics(self.step, NAN, numbers.velocity_norm, loss)


Moved = tuple[Tensor, Any, Any]
"""A parameter, its algorithm, and its state."""


def real_state(algorithm: Any, held: Any) -> Any:
    """Return a copy of a state with the true velocity and with complex entries as real ones."""
    entries = dict(held.entries, velocity=held.true_velocity()) if type(held) is ScaledState else held
    fields = {name: entries[name] for name in algorithm.state_type._fields}
    if "step" in fields:  # in double precision, as the steps themselves take it
        fields["step"] = torch.tensor(float(fields["step"]), dtype=torch.float64, device="cpu")
    return algorithm.state_type(**{name: torch.view_as_real(x) if x.is_complex() else x for name, x in fields.items()})


def loss_and_sharpness(
    loss_fn: Callable[[], Any], moved: list[Moved], maximize: bool, iterations: int
) -> tuple[float, float]:
    """Return the loss, and its sharpness (or that of -loss) with respect to the parameters in `moved`."""
    params = [p for p, _, _ in moved]
    dtype = max((state.velocity.dtype for _, _, state in moved), key=lambda d: torch.finfo(d).bits)
    device = params[0].device
    roots = [
        algorithm.denominators(state, xp).rsqrt().to(device, dtype) if hasattr(algorithm, "denominators") else 1.0
        for _, algorithm, state in moved
    ]
    with torch.enable_grad():
        loss = checked_loss(loss_fn())
        objective = -loss if maximize else loss
        grads: Tensors = gradients_or_zeros([objective], params, create_graph=True)

    def product(vector: Tensors) -> Tensors:
        scaled = [x * root for x, root in zip(vector, roots, strict=True)]
        along = [as_parameter(x, p) for x, p in zip(scaled, params, strict=True)]
        images = [real(x).to(device, dtype) for x in gradients_or_zeros(grads, params, along)]
        return [x * root for x, root in zip(images, roots, strict=True)]

    generator = torch.Generator(device="cpu").manual_seed(0)
    start = [torch.randn(real(p).shape, generator=generator, dtype=dtype, device="cpu").to(device) for p in params]
    return float(loss.detach()), float(largest_eigenvalue(product, start, iterations, xp))


def checked_loss(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.is_complex():
        raise ValueError(f"Invalid loss_fn: it returned {loss!r:.80} (expected a real tensor with one element)")
    return loss.reshape(())


def real(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def as_parameter(vector: Tensor, p: Tensor) -> Tensor:
    """Return a real vector like a parameter, in its dtype and on its device."""
    if not p.is_complex():
        return vector.to(p.device, p.dtype)
    return torch.view_as_complex(vector.to(p.device, p.dtype.to_real()).contiguous())


@contextmanager
def undisturbed(model: torch.nn.Module, params: Tensors) -> Iterator[None]:
    """Restore the buffers of a model and the states of random number generators afterwards."""
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        with unchanged_generators(params):
            yield
    finally:
        for module, name, buffer, value in buffers:
            buffer.copy_(value)
            module._buffers[name] = buffer


def unchanged_generators(params: Iterable[Tensor]) -> Any:
    """Return a context that restores the states of torch's generators on the CPU and the parameters' devices."""
    devices = {p.device for p in params if p.device.type != "cpu"}
    kind = next((device.type for device in devices), "cuda")
    return torch.random.fork_rng([device.index or 0 for device in devices], device_type=kind)
