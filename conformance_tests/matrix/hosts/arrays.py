"""Hosts that call `inna_core` on arrays of a library."""

import importlib
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import inna_core
from conformance_tests.matrix.cases import Setup
from conformance_tests.matrix.hosts.run import Fact, Snapshot, as_float64
from inna_core.weight_decay import update_with_decay


@dataclass(frozen=True)
class Library:
    """How to make arrays of a library and read them."""

    make: Callable[[np.ndarray, str, Any], Any]
    read: Callable[[Any], np.ndarray]
    transform: Callable[[Any], Any] = lambda function: function


def open_run(
    setup: Setup,
    params: list[np.ndarray],
    *,
    library: str,
    device: str | None = None,
    jit: bool = False,
    loop: bool = False,
) -> "ArrayRun":
    return (LoopRun if loop else ArrayRun)(setup, params, LIBRARIES[library](jit), device)


class ArrayRun:
    def __init__(self, setup: Setup, params: list[np.ndarray], library: Library, device: str | None) -> None:
        self.setup, self.library, self.device, self.k = setup, library, device, 0
        self.algorithm = getattr(inna_core, setup.algorithm)(**setup.hyper)
        self._step = library.transform(self._update)
        self.params = [self._make(p) for p in params]
        self.states = [self.algorithm.init(p) for p in self.params]
        self._before: tuple[list[Any], list[Any]] | None = None

    def _update(self, g: Any, state: Any, theta: Any, lr: Any) -> tuple[Any, Any]:
        decay = self.setup.weight_decay
        return update_with_decay(self.algorithm, g, state, theta, lr, decay, published=self.setup.published_decay)

    def _make(self, x: np.ndarray, dtype: str | None = None) -> Any:
        return self.library.make(x, dtype or self.setup.dtype, self.device)

    def step(self, grads: list[np.ndarray], dtype: str | None = None) -> list[np.ndarray]:
        host_grads = [self._make(g, dtype) for g in grads]
        new_params, new_states = [], []
        for g, state, theta in zip(host_grads, self.states, self.params, strict=True):
            delta, state = self._step(g, state, theta, self.setup.lr(self.k))
            new_params.append(theta + delta)
            new_states.append(state)
        self._before = self.params, self.states
        self.params, self.states, self.k = new_params, new_states, self.k + 1
        # 0-d NumPy arithmetic in the line above, not in the core, makes scalars
        self.params = [self._make(self.library.read(p)) if p.shape == () else p for p in self.params]
        return [self.library.read(g) for g in host_grads]

    def read(self) -> Snapshot:
        return self._snapshot(self.params, self.states)

    def previous(self) -> Snapshot:
        assert self._before is not None
        return self._snapshot(*self._before)

    def _snapshot(self, params: list[Any], states: list[Any]) -> Snapshot:
        names = [name for name in self.algorithm.state_type._fields if name != "step"]
        read = self.library.read
        return Snapshot([read(p) for p in params], {name: [read(getattr(s, name)) for s in states] for name in names})

    def write(self, snapshot: Snapshot, k: int) -> None:
        self.k = k
        self.params = [self._make(p) for p in snapshot.params]
        self.states = [
            state._replace(**{name: self._make(values[i]) for name, values in snapshot.state.items()})
            for i, state in enumerate(self.states)
        ]
        if "step" in self.algorithm.state_type._fields:
            self.states = [state._replace(step=0 * state.step + float(k)) for state in self.states]

    def save(self, path: str) -> None:
        with open(path, "wb") as file:
            pickle.dump((self.k, self.read()), file)

    def load(self, path: str) -> None:
        with open(path, "rb") as file:
            k, snapshot = pickle.load(file)
        self.write(snapshot, k)

    def facts(self) -> dict[str, list[Fact]]:
        return {
            "params": [fact(p) for p in self.params],
            **{
                name: [fact(getattr(state, name)) for state in self.states]
                for name in self.algorithm.state_type._fields
                if name != "step"
            },
        }


class LoopRun(ArrayRun):
    """A run of `inna_core.iterate`, which overwrites its own copies; the gradients are its batches."""

    _iterates: Iterator[inna_core.Iterate] | None = None

    def step(self, grads: list[np.ndarray], dtype: str | None = None) -> list[np.ndarray]:
        self._batch = [self._make(g, dtype) for g in grads]
        if self._iterates is None:
            self._iterates = self._start()
        iterates, self._iterates = self._iterates, None
        self.params, self.states, self.k = next(iterates)
        self._iterates = iterates  # unless it raised, and so has ended
        return [self.library.read(g) for g in self._batch]

    def _start(self) -> Iterator[inna_core.Iterate]:
        return inna_core.iterate(
            self.algorithm,
            self.params,
            lambda theta, batch: batch,
            iter(lambda: self._batch, None),
            self.setup.lr,
            weight_decay=self.setup.weight_decay,
            published_decay=self.setup.published_decay,
            state=self.states,
            step=self.k,
        )

    def write(self, snapshot: Snapshot, k: int) -> None:
        super().write(snapshot, k)
        self._iterates = None


def fact(x: Any) -> Fact:
    from array_api_compat import array_namespace, device

    # the type tells an array from the scalar that 0-d arithmetic makes in NumPy
    namespace = f"{array_namespace(x).__name__}: {type(x).__name__}"
    return Fact(str(x.dtype).split(".")[-1], tuple(x.shape), str(device(x)), namespace)


def numpy_library(jit: bool) -> Library:
    return Library(lambda x, dtype, device: np.array(x, dtype=dtype), as_float64)


def numpy_readonly(jit: bool) -> Library:
    def make(x: np.ndarray, dtype: str, device: Any) -> np.ndarray:
        array = np.array(x, dtype=dtype)
        array.flags.writeable = False
        return array

    return Library(make, as_float64)


def strict(jit: bool) -> Library:
    xp: Any = importlib.import_module("array_api_strict")
    xp.set_array_api_strict_flags(boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=("linalg",))

    def make(x: np.ndarray, dtype: str, device: str | None) -> Any:
        return xp.asarray(x, dtype=getattr(xp, dtype), device=None if device is None else xp.Device(device))

    def read(x: Any) -> np.ndarray:
        return as_float64(np.asarray(xp.asarray(x, device=xp.Device("CPU_DEVICE"))))

    return Library(make, read)


def torch_library(jit: bool) -> Library:
    torch: Any = importlib.import_module("torch")

    def make(x: np.ndarray, dtype: str, device: str | None) -> Any:
        return torch.tensor(as_float64(x)).to(dtype=getattr(torch, dtype), device=device or "cpu")

    def read(x: Any) -> np.ndarray:
        return as_float64(x.detach().cpu().to(torch.complex128 if x.is_complex() else torch.float64).numpy())

    return Library(make, read)


def jax_library(jit: bool) -> Library:
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)

    def make(x: np.ndarray, dtype: str, device: Any) -> Any:
        return jax.numpy.asarray(x, dtype=dtype)

    def transform(update: Callable[..., Any]) -> Callable[..., Any]:
        compiled = jax.jit(update)
        return lambda g, state, theta, lr: compiled(g, state, theta, jax.numpy.asarray(lr, theta.real.dtype))

    return Library(make, as_float64, transform) if jit else Library(make, as_float64)


def cupy_library(jit: bool) -> Library:
    cupy: Any = importlib.import_module("cupy")
    return Library(lambda x, dtype, device: cupy.asarray(x, dtype=dtype), lambda x: as_float64(cupy.asnumpy(x)))


LIBRARIES: dict[str, Callable[[bool], Library]] = {
    "numpy": numpy_library,
    "numpy_readonly": numpy_readonly,
    "strict": strict,
    "torch": torch_library,
    "jax": jax_library,
    "cupy": cupy_library,
}
