"""What a row of the table says about a host, and whether it can run here."""

import importlib
import importlib.util
import os
import shutil
from dataclasses import dataclass, field
from typing import Any

COMPLEX_MOMENTS = {"arrays": "modulus", "optax_transform": "modulus", "torch_optimizer": "parts"}
"""By module: |g|^2, as in optax; or real and imaginary parts squared apart, as in torch."""


@dataclass(frozen=True)
class Host:
    """A way of running an algorithm.

    Attributes:
        name: of the row.
        module: module of `conformance_tests.matrix.hosts` whose ``open_run(setup, params, **options)`` starts a run.
        packages: import names that must be installed.
        options: further arguments of ``open_run``.
        env: environment variables; a row with some runs in a process of its own.
        dtypes: parameter dtypes in which one step is compared with the oracle.
        state_dtypes: dtype of the state where it is not the parameter's.
        traces_hyper: whether hyperparameters are arrays, and so rounded to the dtype of the state.
        pure: whether a step returns new arrays and leaves the old ones alone.
        reads_lr: when the host sees the value of the learning rate and can refuse it: at "each step", at the "start",
            or "never" (it is traced).
        device: accelerator the row needs: "cuda" or none.
        lr_name: the host's name of the learning rate.
        compiled: whether the row compiles something for each case, and is slow for that.
        compiler: whether that needs a C++ compiler.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ("float64", "float32")
    state_dtypes: dict[str, str] = field(default_factory=dict)
    traces_hyper: bool = False
    pure: bool = False
    reads_lr: str = "each step"
    device: str = "cpu"
    lr_name: str = "lr"
    compiled: bool = False
    compiler: bool = False

    @property
    def wide(self) -> str:
        """The widest dtype."""
        return self.dtypes[0]

    @property
    def narrow(self) -> str:
        """The dtype whose arithmetic shows most: bfloat16 with its float32 state where the host has it."""
        return next((dtype for dtype in self.dtypes if dtype in self.state_dtypes), self.dtypes[-1])

    @property
    def complex_moment(self) -> str | None:
        """How INNAprop's second moment takes complex gradients, "modulus" or "parts"; None where they are refused."""
        return COMPLEX_MOMENTS.get(self.module)

    def missing(self) -> str | None:
        """Return why this row cannot run here, or None."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed"
        if self.compiler and no_compiler():
            return no_compiler()
        return no_cuda(self.packages) if self.device == "cuda" else None


def no_cuda(packages: tuple[str, ...]) -> str | None:
    if "torch" in packages:
        import torch

        return None if torch.cuda.is_available() else "torch sees no CUDA device"
    cupy: Any = importlib.import_module("cupy")
    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "CuPy sees no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy sees no CUDA device ({error})"


def no_compiler() -> str | None:
    found = any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++")))
    return None if found else "torch.compile finds no C++ compiler here"
