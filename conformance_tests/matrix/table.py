"""The table: every algorithm, with its cases, runs on every host and must pass every property (``test_*.py`` here).

A new algorithm or a new host is one row below; a new case is one line of an algorithm. docs/contributing.md shows how.
"""

from functools import partial
from typing import Any

from conformance_tests import oracle
from conformance_tests.matrix.cases import Algorithm, Case, decaying, up_and_down
from conformance_tests.matrix.hosts import Host

# --- algorithms

DAMPINGS = ("alpha", "beta")

ALGORITHMS = (
    Algorithm(
        "INNA",
        hyper={"alpha": 0.5, "beta": 0.1},
        state={"velocity": "any"},
        step=oracle.inna_step,
        refused={"alpha": (-1e-9,), "beta": (0.0, -0.1), "momentum": (-0.1, 1.0), "lead": (0.0, -1.0)},
        optional=("alpha", "beta", "momentum", "lead"),
        cases=(
            Case("default", (0.1,)),
            Case("decaying", decaying(0.1, 0.25)),
            Case("no-viscosity", (0.01,), {"alpha": 0.0, "beta": 1.0}),
            Case("alpha-beta-1", (0.03,), {"alpha": 2.0, "beta": 0.5}),  # velocity ignores the gradient
            Case("lr-above-beta", (0.1,), {"beta": 0.01}),
            Case("alpha-lr-1", (0.1,), {"alpha": 10.0}),  # velocity forgets
            Case("alpha-lr-above-1", (0.1,), {"alpha": 15.0, "beta": 0.2}),  # velocity alternates
            Case("lr-0", (0.0,)),
            Case("decay", (0.1,), weight_decay=0.3),
            Case("published-decay", (0.1,), weight_decay=0.3, published_decay=True),
            Case("momentum", (0.1,), {"momentum": 0.9}, without=DAMPINGS, weight_decay=0.3),
            Case("lead", up_and_down(0.1), {"momentum": 0.8, "lead": 2.0}, without=DAMPINGS, weight_decay=0.3),
        ),
        trial=Case("trial", (0.1,), {"beta": 0.2}),
    ),
    Algorithm(
        "INNAprop",
        hyper={"alpha": 0.1, "beta": 0.9, "sigma": 0.999, "eps": 1e-8},
        state={"velocity": "any", "second_moment": "nonnegative"},
        step=oracle.innaprop_step,
        refused={
            "alpha": (-1e-9,),
            "beta": (0.0, -0.1),
            "sigma": (-0.1, 1.0),
            "eps": (0.0, -1e-8),
            "momentum": (-0.1, 1.0),
            "lead": (0.0, -1.0),
        },
        optional=("alpha", "beta", "momentum", "lead"),
        cases=(
            Case("default", (0.001,)),
            Case("decaying", decaying(0.01, 0.25)),
            Case("2-2", (0.01,), {"alpha": 2.0, "beta": 2.0}),
            Case("lr-is-beta", (0.9,)),  # the printed form divides by beta - lr
            Case("lr-above-beta", (0.2,), {"beta": 0.1}),
            Case("sigma-0", (0.01,), {"sigma": 0.0}),
            Case("sigma-near-1", (0.01,), {"sigma": 0.9999}),  # 1 - sigma^k as a difference would have few digits
            Case("large-eps", (0.01,), {"eps": 0.5}),
            Case("decay", (0.01,), weight_decay=0.3),
            Case("published-decay", (0.01,), weight_decay=0.3, published_decay=True),
            Case("momentum", (0.01,), {"momentum": 0.9}, without=DAMPINGS, weight_decay=0.3),
            Case("lead-1", (0.01,), {"momentum": 0.9, "lead": 1.0}, without=DAMPINGS),
            Case("lead", up_and_down(0.01), {"momentum": 0.8, "lead": 2.0}, without=DAMPINGS, weight_decay=0.3),
        ),
        trial=Case("trial", (0.02,), {"alpha": 2.0, "beta": 2.0}),
    ),
)

CASES = tuple(case for algorithm in ALGORITHMS for case in algorithm.cases)
DEFAULTS = tuple(algorithm.default for algorithm in ALGORITHMS)
BY_NAME = {algorithm.name: algorithm for algorithm in ALGORITHMS}

# --- hosts

FLOATS, LOW = ("float64", "float32"), ("bfloat16", "float16")
ALL = (*FLOATS, *LOW)
WIDE_STATE = dict.fromkeys(LOW, "float32")


def arrays(name: str, package: str, dtypes: tuple[str, ...] = FLOATS, /, **options: Any) -> Host:
    """`inna_core` on arrays of a library, without an adapter."""
    options = {"library": package, **options}
    device = "cuda" if options.get("device") == "cuda" or package == "cupy" else "cpu"
    jit = "jit" in options
    reads_lr = "never" if jit else "each step"
    pure = "loop" not in options
    return Host(
        name, "arrays", (package,), options, dtypes=dtypes, pure=pure, device=device, compiled=jit, reads_lr=reads_lr
    )


def torch(name: str, **options: Any) -> Host:
    return Host(
        name,
        "torch_optimizer",
        ("torch",),
        options,
        dtypes=ALL,
        state_dtypes=WIDE_STATE,
        device=options.get("device", "cpu"),
        compiled="compiled" in options,
        compiler="compiled" in options,
    )


def optax(name: str, /, **more: Any) -> Host:
    options = more.get("options", {})
    row = {"dtypes": ALL, "state_dtypes": WIDE_STATE, "compiled": "jit" in options, **more}
    return Host(name, "optax_transform", ("optax",), pure=True, reads_lr="start", lr_name="learning_rate", **row)


def keras(backend: str, **options: Any) -> Host:
    return Host(
        "-".join(["keras", backend, *options]),
        "keras_optimizer",
        ("keras", backend),
        options,
        {"KERAS_BACKEND": backend},
        dtypes=ALL,
        state_dtypes=WIDE_STATE,
        reads_lr="start",
        lr_name="learning_rate",
        compiled="jit" in options,
    )


strict = partial(arrays, library="strict")
FOUR_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}

HOSTS = (
    arrays("numpy", "numpy", (*FLOATS, "float16")),
    arrays("numpy-loop", "numpy", (*FLOATS, "float16"), library="numpy", loop=True),
    arrays("numpy-readonly", "numpy", library="numpy_readonly"),
    strict("strict", "array_api_strict"),
    strict("strict-device1", "array_api_strict", device="device1"),
    strict("strict-no-float64", "array_api_strict", ("float32",), device="no_float64"),
    arrays("cupy", "cupy"),
    arrays("torch-arrays", "torch", ALL),
    arrays("torch-arrays-cuda", "torch", ALL, device="cuda"),
    arrays("jax-arrays", "jax", ALL),
    arrays("jax-arrays-jit", "jax", jit=True),
    torch("torch"),
    torch("torch-single", foreach=False),
    torch("torch-foreach", foreach=True),
    torch("torch-fused", fused=True),
    # Dynamo wraps what is raised while it traces, so that a refused lr is no ValueError there. No float64: compiled by
    # torch 2.13, updates of 0-d float64 tensors in host memory get lost, those of torch's own SGD too.
    Host(
        "torch-compiled",
        "torch_optimizer",
        ("torch",),
        {"traced": True},
        dtypes=("float32",),
        reads_lr="start",
        compiled=True,
    ),
    # foreach=False: small tensors are compiled too
    torch("torch-inductor", compiled=True, foreach=False),
    torch("torch-cuda", device="cuda"),
    torch("torch-cuda-single", device="cuda", foreach=False),
    torch("torch-cuda-foreach", device="cuda", foreach=True),
    torch("torch-cuda-fused", device="cuda", fused=True),
    torch("torch-cuda-inductor", device="cuda", compiled=True, foreach=False),
    torch("torch-cuda-capturable", device="cuda", capturable=True),
    optax("optax"),
    optax("optax-jit", options={"jit": True}),
    optax("optax-inject", options={"jit": True, "inject": True}, traces_hyper=True),
    optax(
        "optax-sharded",
        options={"jit": True, "shards": 4},
        env=FOUR_DEVICES,
        dtypes=FLOATS,
        state_dtypes={},
    ),
    keras("tensorflow"),
    keras("tensorflow", jit=True),
    keras("jax"),
    keras("jax", jit=True),
    keras("torch"),
)
