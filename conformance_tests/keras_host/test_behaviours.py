"""What Keras offers around an optimizer, with ours, on each backend, in a process of its own."""

from typing import Any

import numpy as np
import pytest

from conformance_tests.distances import largest
from conformance_tests.matrix.cases import EPS, representable
from conformance_tests.matrix.hosts import no_compiler
from conformance_tests.matrix.rows import FULLEST
from conformance_tests.matrix.table import BY_NAME
from conformance_tests.packages import skip_without
from conformance_tests.tiers import nightly_but

BACKENDS = ("tensorflow", "jax", "torch")

ROUNDING = 1e-5
"""A few float32 steps in another order of operations; a wrong step is off by 1e-2 here."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def call(backend: str, on_keras: Any) -> Any:
    return lambda function, *arguments: on_keras(backend, f"keras_host.{function}", *arguments)


each_optimizer = pytest.mark.parametrize("name", BY_NAME)
each_optimizer_nightly = pytest.mark.parametrize("name", nightly_but([FULLEST.name], BY_NAME))
each_damped_optimizer = pytest.mark.parametrize("name", [name for name in BY_NAME if "alpha" in BY_NAME[name].hyper])


def difference(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    assert [x.shape for x in got] == [x.shape for x in want]
    return largest(
        float(np.max(np.abs(x - y))) / max(1.0, float(np.max(np.abs(y)))) for x, y in zip(got, want, strict=True)
    )


WAYS: dict[str, dict[str, Any]] = {
    "traced": {"jit_compile": False},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "steps_per_execution": {"steps_per_execution": 4},
}
"""By name: arguments of `compile`."""

COMPILED_ON_TORCH = ("torch", "jit")
"""Keras hands this to torch.compile, which takes longer than all other ways together."""


def ways_of_fitting() -> list[Any]:
    """Return (backend, way), nightly but what Keras itself chooses, and XLA."""
    pairs = [(backend, way) for backend in BACKENDS for way in WAYS]
    pairs.remove(("torch", "steps_per_execution"))  # Keras on torch executes one step at a time
    kept = [pair for pair in pairs if pair[1] in ("traced", "jit") and pair != COMPILED_ON_TORCH]
    compiles = pytest.mark.skipif(no_compiler() is not None, reason=str(no_compiler()))
    return [
        pytest.param(
            *pair,
            marks=[
                *([] if pair in kept else [pytest.mark.nightly]),
                *([compiles] if pair == COMPILED_ON_TORCH else []),
            ],
        )
        for pair in pairs
    ]


@each_optimizer_nightly
@pytest.mark.parametrize(("backend", "way"), ways_of_fitting())
def test_fit_makes_the_steps_of_a_loop(name: str, way: str, call: Any) -> None:
    found = call("model_scenarios:fit_equals_a_loop", name, WAYS[way])
    assert difference(found["got"], found["want"]) <= ROUNDING
    assert found["losses"][1] < 0.9 * found["losses"][0]


@each_optimizer
@pytest.mark.parametrize("backend", ["jax", "torch"])  # Keras offers no stateless_apply on TensorFlow
def test_stateless_apply(name: str, call: Any) -> None:
    found = call("scenarios:stateless", name)
    assert difference(found["got"], found["want"]) <= ROUNDING
    assert difference(found["untouched"], found["start"]) == 0.0


@each_optimizer
def test_configs_make_the_same_optimizer(name: str, call: Any) -> None:
    found = call("setting_scenarios:config_round_trip", name)
    assert found["same"]
    assert found["from_config"]
    assert found["registered"] == f"inna>{name}"
    assert found["by_string"] == name
    assert difference(found["got"], found["want"]) == 0.0


@each_optimizer_nightly
@pytest.mark.parametrize("loader", BACKENDS)
def test_a_saved_model_goes_on_under_any_backend(
    name: str, loader: str, call: Any, on_keras: Any, tmp_path: Any
) -> None:
    path = str(tmp_path / "model.keras")
    want = call("model_scenarios:save_model", name, path)
    got = on_keras(loader, "keras_host.model_scenarios:load_model", path)
    assert difference(got, want) <= ROUNDING


@each_optimizer_nightly
def test_a_saved_bfloat16_model_keeps_its_float32_state(name: str, call: Any, tmp_path: Any) -> None:
    found = call("model_scenarios:narrow_model_round_trip", name, str(tmp_path / "model.keras"))
    assert found["dtypes"] == found["want_dtypes"]
    assert set(found["dtypes"]) == {"float32", "bfloat16"}  # state, and compensations
    for got, want in (("got", "want"), ("went_on", "want_went_on")):
        assert difference(found[got], found[want]) == 0.0
    wide = [x for x, dtype in zip(found["want"], found["dtypes"], strict=True) if dtype == "float32"]
    # or storing it in bfloat16 would have been enough
    assert any(np.any(representable(x, "bfloat16") != x) for x in wide)


@each_optimizer
def test_weights_files_hold_the_state(name: str, call: Any, tmp_path: Any) -> None:
    found = call("model_scenarios:weights_round_trip", name, str(tmp_path / "model.weights.h5"))
    assert difference(found["got"], found["want"]) == 0.0
    assert any(np.any(x != 0) for x in found["want"])


@each_optimizer
@pytest.mark.parametrize("check", ["accumulation", "averages_that_overwrite", "callable_rate", "plain_gradients"])
def test_same_steps(name: str, check: str, call: Any) -> None:
    """Those of a loop without the feature."""
    found = call(f"scenarios:{check}", name)
    assert difference(found["got"], found["want"]) <= ROUNDING


@each_optimizer_nightly
@pytest.mark.parametrize("check", ["copies_go_on", "scheduled_by_callback"])
def test_same_steps_of_a_model(name: str, check: str, call: Any) -> None:
    found = call(f"model_scenarios:{check}", name)
    assert difference(found["got"], found["want"]) <= ROUNDING


@each_optimizer
def test_the_learning_rate_can_be_set_to_valid_numbers(name: str, call: Any) -> None:
    found = call("setting_scenarios:set_rate", name)
    assert [message.split(" (")[0] for message in found["messages"]] == [
        "Invalid learning_rate: -0.1",
        "Invalid learning_rate: nan",
        "Invalid learning_rate: '0.1'",
    ]
    assert difference(found["got"], found["want"]) == 0.0


@each_damped_optimizer
def test_dampings_and_decay_can_be_set_to_valid_numbers(name: str, call: Any) -> None:
    found = call("setting_scenarios:set_dampings", name)
    assert [message.split(" (")[0] for message in found["messages"]] == [
        "Invalid alpha: -1.0",
        "Invalid beta: 0.0",
        "Invalid weight_decay: -0.5",
        "Invalid weight_decay: '0.5'",
    ]
    assert found["same"]
    assert difference(found["got"], found["want"]) == 0.0


@each_optimizer
def test_variables_are_loaded_all_or_none(name: str, call: Any) -> None:
    found = call("setting_scenarios:load_what_does_not_fit", name)
    assert found["message"].startswith("Invalid store: shape (9, 9) at ")
    assert difference(found["got"], found["want"]) == 0.0


@each_optimizer
@pytest.mark.parametrize("argument", ["clipnorm", "clipvalue", "global_clipnorm"])
@pytest.mark.parametrize("limit", [0.7, 1e6])
def test_clipping(name: str, argument: str, limit: float, call: Any) -> None:
    found = call("scenarios:clipping", name, argument, limit)
    assert difference(found["got"], found["want"]) <= ROUNDING
    # the large limit clips nothing, the small one something
    assert (difference(found["got"], found["plain"]) > 1e-3) == (limit < 1.0)


@each_optimizer
def test_moving_average(name: str, call: Any) -> None:
    found = call("scenarios:moving_average", name)
    assert difference(found["during"], found["plain"]) == 0.0
    assert difference(found["got"], found["want"]) <= ROUNDING
    assert difference(found["got"], found["plain"]) > 1e-3


@each_optimizer
def test_loss_scaling(name: str, call: Any) -> None:
    found = call("scenarios:loss_scaling", name)
    assert difference(found["fixed"], found["want"]) <= ROUNDING
    assert difference(found["dynamic"], found["want"]) <= ROUNDING
    assert found["iterations"] == 4  # of 8 calls, half had gradients that are not finite


@each_optimizer
def test_constraints_hold(name: str, call: Any) -> None:
    found = call("scenarios:constraint", name)
    assert difference(found["got"], found["want"]) <= ROUNDING
    assert min(x.min() for x in found["got"]) >= 0.0
    assert difference(found["got"], found["plain"]) > 1e-3


@each_optimizer
def test_variables_can_be_excluded_from_decay(name: str, call: Any) -> None:
    found = call("scenarios:excluded_from_decay", name)
    (kernel, bias), (decayed, decayed_bias), (_, plain_bias) = found["got"], found["decayed"], found["plain"]
    assert difference([kernel, bias], [decayed, plain_bias]) <= ROUNDING
    assert difference([bias], [decayed_bias]) > 1e-3


@each_optimizer
def test_variables_that_gradients_overwrite(name: str, call: Any) -> None:
    found = call("scenarios:overwritten", name)
    assert difference(found["got"], found["want"]) <= ROUNDING
    assert np.array_equal(found["scale"], [8.0, 8.0])


@each_optimizer
def test_embeddings(name: str, call: Any) -> None:
    found = call("model_scenarios:embedding", name)
    assert difference(found["got"], found["want"]) <= ROUNDING
    assert np.array_equal(found["got"][0][[1, 2, 4]], found["start"][0][[1, 2, 4]])
    assert not np.array_equal(found["got"][0], found["start"][0])
    assert found["loss"][1] < found["loss"][0]


@each_optimizer
@pytest.mark.parametrize("backend", ["tensorflow"])
def test_gradients_whose_shape_is_unknown_when_traced(name: str, call: Any) -> None:
    found = call("scenarios:gradients_of_unknown_shape", name)
    assert difference(found["got"], found["want"]) <= ROUNDING


EMBEDDINGS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "float32"),
    "decay": ({"weight_decay": 0.5}, "float32"),
    "global_clipnorm": ({"global_clipnorm": 0.1}, "float32"),
    "accumulation": ({"gradient_accumulation_steps": 2}, "float32"),
    "use_ema": ({"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2}, "float32"),
    "loss_scale_factor": ({"loss_scale_factor": 8.0}, "float32"),
    "LossScaleOptimizer": ({}, "mixed_float16"),
}
"""By name: arguments of the optimizer, and the dtype policy."""

DENSE = ("plain", "LossScaleOptimizer")
"""What the default tier has of these where gradients of embeddings are dense, as those of a matrix are."""


def ways_of_embedding() -> list[Any]:
    pairs = [(backend, way) for backend in BACKENDS for way in EMBEDDINGS]
    kept = [(backend, way) for backend, way in pairs if backend == "tensorflow" or way in DENSE]
    return [pytest.param(*pair, marks=[] if pair in kept else [pytest.mark.nightly]) for pair in pairs]


@each_optimizer_nightly
@pytest.mark.parametrize(("backend", "way"), ways_of_embedding())
def test_an_embedding_moves_as_a_matrix_does(name: str, way: str, call: Any) -> None:
    options, dtype_policy = EMBEDDINGS[way]
    found = call("model_scenarios:embedding_model", name, options, dtype_policy)
    # XLA may fuse, and so leave out, some of the roundings to float16 before the gradient
    bound = ROUNDING if dtype_policy == "float32" else EPS["float16"]
    assert difference(found["got"], found["want"]) <= bound
    assert difference(found["got"], found["start"]) > 5 * bound


POLICIES = {
    "mixed_bfloat16": ("float32", "float32"),
    "mixed_float16": ("float32", "float32"),
    "bfloat16": ("bfloat16", "float32"),
}
"""By policy: dtypes of the variables and of the state."""


@each_optimizer_nightly
@pytest.mark.parametrize("dtype_policy", POLICIES)
def test_dtype_policies(name: str, dtype_policy: str, call: Any) -> None:
    found = call("model_scenarios:policy", name, dtype_policy)
    stored, state = POLICIES[dtype_policy]
    assert (found["variables"], found["velocities"]) == ({stored}, {state})
    assert found["loss"][1] < 0.5 * found["loss"][0]
    assert (found["optimizer"] == "LossScaleOptimizer") == (dtype_policy == "mixed_float16")


@each_optimizer_nightly
def test_data_parallel_on_eight_devices(name: str, workers: Any) -> None:
    skip_without("keras", "jax")
    env = {
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    found = workers(env).call("conformance_tests.keras_host.model_scenarios:data_parallel", name)
    assert found["spread"] == {8}
    assert difference(found["got"], found["want"]) <= ROUNDING


@pytest.mark.nightly
@each_optimizer_nightly
def test_mirrored_strategy_on_two_devices(name: str, workers: Any) -> None:
    skip_without("keras", "tensorflow")
    # a process of its own: logical devices are made before anything is computed, and of CPUs
    found = workers({"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}).call(
        "conformance_tests.keras_host.model_scenarios:mirrored", name
    )
    assert found["replicas"] == 2
    assert difference(found["got"], found["want"]) <= ROUNDING


@each_optimizer
def test_multi_optimizer(name: str, call: Any) -> None:
    found = call("scenarios:several_optimizers", name)
    assert difference(found["got"], found["want"]) <= ROUNDING


@each_optimizer
def test_names_are_numbered_as_keras_numbers_its_own(name: str, call: Any) -> None:
    found, first = call("model_scenarios:numbered_names", name), name.lower()
    assert found["names"] == [first, f"{first}_1", "mine"]
    assert len(set(found["paths"])) == len(found["paths"])
    assert "optimizer_variables" in found["tree"]


@each_optimizer
@pytest.mark.parametrize("backend", ["torch"])
def test_negated_gradients_of_torch_count_as_their_values(name: str, call: Any) -> None:
    assert difference(**call("scenarios:negated_gradients", name)) < ROUNDING


def test_a_velocity_that_forgets(call: Any) -> None:
    """A kernel that divides by 1 - alpha lr fails here."""
    found = call("scenarios:velocity_that_forgets")
    assert difference(found["got"], found["want"]) <= ROUNDING


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_on_the_bits_is_what_a_cast_does(dtype: str, call: Any) -> None:
    """For every narrow number, its neighbours in float32, the points halfway, infinities and NaNs."""
    got, want = call("scenarios:rounding", dtype)
    assert np.array_equal(got, want, equal_nan=True)


@pytest.mark.parametrize("nesterov", [False, True])
def test_leads_1_and_1_plus_momentum_are_the_heavy_ball_and_nesterovs_of_sgd(call: Any, nesterov: bool) -> None:
    got, want = call("scenarios:nesterov_steps", nesterov)
    assert difference(got, want) <= 1e-10
    assert {x.dtype for x in got} == {np.dtype("float64")}


@each_damped_optimizer
def test_momentum_and_lead_are_configured_and_set(call: Any, name: str) -> None:
    copied, with_alpha, with_momentum = call("setting_scenarios:momentum_in_config", name)
    assert copied == (None, None, 0.8, 3.0)
    assert with_alpha[0] == 0.5
    assert with_alpha[1] > 0
    assert with_alpha[2:] == (None, None)
    assert with_momentum == (None, None, 0.7, None)


MOMENTUM, PUBLISHED = {"momentum": 0.9}, {"published_decay": True}


@pytest.mark.parametrize(("first", "then"), [(PUBLISHED, MOMENTUM), (MOMENTUM, PUBLISHED)])
@each_damped_optimizer
def test_momentum_is_refused_beside_published_decay(call: Any, name: str, first: Any, then: Any) -> None:
    message, *found = call("setting_scenarios:momentum_beside_published_decay", name, first, then)
    assert message.startswith("Invalid published_decay: True")
    assert found == [first.get("momentum"), first.get("published_decay", False)]
