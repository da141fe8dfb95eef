"""`inna_torch`: parameters with gradients, `optimizer.step()`, a `LambdaLR` for the schedule."""

import warnings
from typing import Any

import numpy as np
import torch
import torch._dynamo

import inna_core
import inna_torch
from conformance_tests.matrix.cases import Setup
from conformance_tests.matrix.hosts.run import Fact, Snapshot, as_float64


def open_run(
    setup: Setup, params: list[np.ndarray], *, device: str = "cpu", traced: bool = False, **options: Any
) -> "TorchRun":
    return (TracedRun if traced else TorchRun)(setup, params, device, options)


class TorchRun:
    def __init__(self, setup: Setup, params: list[np.ndarray], device: str, options: dict[str, Any]) -> None:
        self.setup, self.device, self.k = setup, device, 0
        self.params = [torch.nn.Parameter(self._make(p), requires_grad="int" not in setup.dtype) for p in params]
        if setup.published_decay:
            options = {"published_decay": True, **options}
        self.optimizer = getattr(inna_torch, setup.algorithm)(
            self.params, lr=setup.lr(0), weight_decay=setup.weight_decay, **setup.hyper, **options
        )
        names = getattr(inna_core, setup.algorithm).state_type._fields
        self.names = [name for name in names if name != "step"]

    def _make(self, x: np.ndarray, dtype: str | None = None) -> torch.Tensor:
        return torch.tensor(as_float64(x)).to(dtype=getattr(torch, dtype or self.setup.dtype), device=self.device)

    def step(self, grads: list[np.ndarray], dtype: str | None = None) -> list[np.ndarray]:
        # What cannot be assigned as a gradient, torch refuses itself; nothing has changed then.
        for p, g in zip(self.params, grads, strict=True):
            p.grad = self._make(g, dtype)
        for group in self.optimizer.param_groups:
            group["lr"] = self.setup.lr(self.k)
        with warnings.catch_warnings():
            # some cases are beyond the kernel, and saying so is the test of another place
            warnings.filterwarnings("ignore", "fused=True, but")
            self.take_step()
        self.k += 1
        return [read(p.grad) for p in self.params]

    def take_step(self) -> None:
        self.optimizer.step()

    def read(self) -> Snapshot:
        state = self.optimizer.state
        names = [*self.names, *(["compensation"] if any("compensation" in state[p] for p in self.params) else [])]
        return Snapshot(
            [read(p) for p in self.params],
            {name: [read(state[p].get(name, torch.zeros_like(p))) for p in self.params] for name in names},
        )

    def write(self, snapshot: Snapshot, k: int) -> None:
        self.k = k
        with torch.no_grad():
            for p, value in zip(self.params, snapshot.params, strict=True):
                p.copy_(self._make(value))
        state_dict = self.optimizer.state_dict()
        state_dict["state"] = {
            i: {
                **{name: torch.tensor(values[i]) for name, values in snapshot.state.items()},
                **({"step": torch.tensor(float(k))} if self._counts() else {}),
            }
            for i in range(len(self.params))
        }
        self.optimizer.load_state_dict(state_dict)

    def _counts(self) -> bool:
        return "step" in getattr(inna_core, self.setup.algorithm).state_type._fields

    def save(self, path: str) -> None:
        torch.save({"k": self.k, "params": self.params, "optimizer": self.optimizer.state_dict()}, path)

    def load(self, path: str) -> None:
        saved = torch.load(path, weights_only=True)
        self.k = saved["k"]
        with torch.no_grad():
            for p, value in zip(self.params, saved["params"], strict=True):
                p.copy_(value)
        self.optimizer.load_state_dict(saved["optimizer"])

    def facts(self) -> dict[str, list[Fact]]:
        state = self.optimizer.state
        return {
            "params": [fact(p) for p in self.params],
            **{name: [fact(state[p][name]) for p in self.params] for name in self.names},
        }

    def previous(self) -> Snapshot:
        raise NotImplementedError("a torch optimizer updates in place")


class TracedRun(TorchRun):
    """Steps as torch.compile traces them; which backend makes code of the traced operations is torch's affair."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        torch._dynamo.reset()
        self.compiled = torch.compile(self.optimizer.step, backend="aot_eager")

    def write(self, snapshot: Snapshot, k: int) -> None:
        """Write into the state that is there: for one that is loaded, a step would be compiled anew."""
        if not self.optimizer.state:
            return super().write(snapshot, k)
        self.k = k
        with torch.no_grad():
            for i, p in enumerate(self.params):
                p.copy_(self._make(snapshot.params[i]))
                for name, values in snapshot.state.items():
                    self.optimizer.state[p][name].copy_(self._make(values[i]))
                if self._counts():
                    self.optimizer.state[p]["step"].fill_(k)
        return None

    def take_step(self) -> None:
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # torch's own imports
        # beyond the limit of what is compiled anew it would be run as it is
        with torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
            self.compiled()


def read(x: Any) -> np.ndarray:
    return as_float64(x.detach().cpu().to(torch.complex128 if x.is_complex() else torch.float64).numpy())


def fact(x: torch.Tensor) -> Fact:
    return Fact(str(x.dtype).split(".")[-1], tuple(x.shape), str(x.device), "torch")
