"""The hosts, one row each."""

import importlib
import importlib.util
import os
import shutil
from dataclasses import dataclass, field, replace
from typing import Any

FLOATS = ("float64", "float32")

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
        dtypes: parameter dtypes in which one step is held against the oracle.
        state_dtypes: dtype of the state where it is not the parameter's.
        traces_hyper: whether hyperparameters are arrays, and so rounded to the dtype of the state.
        pure: whether a step returns new arrays and leaves the old ones alone.
        reads_lr: when the host sees the value of the learning rate and can refuse it: at "each step", at the "start",
            or "never" (it is traced).
        device: accelerator the row needs: "cuda" or none.
        lr_name: the host's name of the learning rate.
        compiler: whether the row needs a C++ compiler.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    dtypes: tuple[str, ...] = FLOATS
    state_dtypes: dict[str, str] = field(default_factory=dict)
    traces_hyper: bool = False
    pure: bool = False
    reads_lr: str = "each step"
    device: str = "cpu"
    lr_name: str = "lr"
    compiler: bool = False

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


LOW = ("bfloat16", "float16")
WIDE_STATE: dict[str, str] = dict.fromkeys(LOW, "float32")


def keras_host(backend: str, package: str, **options: Any) -> Host:
    return Host(
        "-".join(["keras", backend, *options]),
        "keras_optimizer",
        ("keras", package),
        options,
        {"KERAS_BACKEND": backend},
        (*FLOATS, *LOW),
        WIDE_STATE,
        reads_lr="start",
        lr_name="learning_rate",
    )


def torch_host(name: str, **options: Any) -> Host:
    device = options.get("device", "cpu")
    return Host(name, "torch_optimizer", ("torch",), options, {}, (*FLOATS, *LOW), WIDE_STATE, device=device)


HOSTS: tuple[Host, ...] = (
    Host("numpy", "arrays", ("numpy",), {"library": "numpy"}, dtypes=(*FLOATS, "float16"), pure=True),
    Host("numpy-readonly", "arrays", ("numpy",), {"library": "numpy_readonly"}, pure=True),
    Host("strict", "arrays", ("array_api_strict",), {"library": "strict"}, pure=True),
    Host("strict-device1", "arrays", ("array_api_strict",), {"library": "strict", "device": "device1"}, pure=True),
    Host(
        "strict-no-float64",
        "arrays",
        ("array_api_strict",),
        {"library": "strict", "device": "no_float64"},
        dtypes=("float32",),
        pure=True,
    ),
    Host("cupy", "arrays", ("cupy",), {"library": "cupy"}, pure=True, device="cuda"),
    Host("torch-arrays", "arrays", ("torch",), {"library": "torch"}, dtypes=(*FLOATS, *LOW), pure=True),
    Host(
        "torch-arrays-cuda",
        "arrays",
        ("torch",),
        {"library": "torch", "device": "cuda"},
        dtypes=(*FLOATS, *LOW),
        pure=True,
        device="cuda",
    ),
    Host("jax-arrays", "arrays", ("jax",), {"library": "jax"}, dtypes=(*FLOATS, *LOW), pure=True),
    Host(
        "jax-arrays-jit",
        "arrays",
        ("jax",),
        {"library": "jax", "jit": True},
        pure=True,
        reads_lr="never",
    ),
    torch_host("torch"),
    torch_host("torch-single", foreach=False),
    torch_host("torch-foreach", foreach=True),
    torch_host("torch-fused", fused=True),
    # Dynamo wraps what is raised while it traces, so that a refused lr is no ValueError there. No float64: compiled by
    # torch 2.13, updates of 0-d float64 tensors in host memory get lost, those of torch's own SGD too.
    # One dtype, since each case costs seconds to compile.
    replace(torch_host("torch-compiled", traced=True), reads_lr="start", dtypes=("float32",), state_dtypes={}),
    # foreach=False: small tensors are compiled too
    replace(torch_host("torch-inductor", compiled=True, foreach=False), compiler=True),
    torch_host("torch-cuda", device="cuda"),
    torch_host("torch-cuda-single", device="cuda", foreach=False),
    torch_host("torch-cuda-foreach", device="cuda", foreach=True),
    torch_host("torch-cuda-fused", device="cuda", fused=True),
    replace(torch_host("torch-cuda-inductor", device="cuda", compiled=True, foreach=False), compiler=True),
    torch_host("torch-cuda-capturable", device="cuda", capturable=True),
    Host(
        "optax",
        "optax_transform",
        ("optax",),
        dtypes=(*FLOATS, *LOW),
        state_dtypes=WIDE_STATE,
        pure=True,
        reads_lr="start",
        lr_name="learning_rate",
    ),
    Host(
        "optax-jit",
        "optax_transform",
        ("optax",),
        {"jit": True},
        dtypes=(*FLOATS, *LOW),
        state_dtypes=WIDE_STATE,
        pure=True,
        reads_lr="start",
        lr_name="learning_rate",
    ),
    Host(
        "optax-inject",
        "optax_transform",
        ("optax",),
        {"jit": True, "inject": True},
        dtypes=(*FLOATS, *LOW),
        state_dtypes=WIDE_STATE,
        traces_hyper=True,
        pure=True,
        reads_lr="start",
        lr_name="learning_rate",
    ),
    Host(
        "optax-sharded",
        "optax_transform",
        ("optax",),
        {"jit": True, "shards": 4},
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"},
        pure=True,
        reads_lr="start",
        lr_name="learning_rate",
    ),
    keras_host("tensorflow", "tensorflow"),
    keras_host("tensorflow", "tensorflow", jit=True),
    keras_host("jax", "jax"),
    keras_host("jax", "jax", jit=True),
    keras_host("torch", "torch"),
)
