"""Which files an optimizer takes: names, shapes, dtypes, dampings, and layouts that must be stated."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="safetensors is not installed")

from inna_core.portable import PortableState, fitted, mapping_of_layers
from inna_core.portable.layouts import LAYOUTS, laid_out

RNG = np.random.default_rng(0)
SQUARE, VECTOR = RNG.standard_normal((3, 3)), RNG.standard_normal(3)


def state_of(framework: str, names: tuple[str, str], **changes: Any) -> PortableState:
    arrays = dict(zip(names, (SQUARE, VECTOR), strict=True))
    numbers: dict[str, Any] = {name: {"alpha": 0.5, "beta": 0.1, "lr": 0.1} for name in names}
    slots = {name: {"velocity": 2 * x} for name, x in arrays.items()}
    return replace(PortableState(framework, "INNA", 9, slots, arrays, numbers), **changes)


KERAS, TORCH = ("net/dense/kernel", "net/dense/bias"), ("dense.weight", "dense.bias")
MAPPING = mapping_of_layers([("net/dense", "dense", "dense")], source="keras", target="torch")


@pytest.mark.fast
def test_a_mapping_states_names_and_layouts() -> None:
    got = fitted(state_of("keras", KERAS), state_of("torch", TORCH), MAPPING)
    assert (got.framework, got.step) == ("torch", 9)
    np.testing.assert_array_equal(got.parameters["dense.weight"], SQUARE.T)
    np.testing.assert_array_equal(got.slots["dense.weight"]["velocity"], 2 * SQUARE.T)
    np.testing.assert_array_equal(got.parameters["dense.bias"], VECTOR)


@pytest.mark.fast
def test_the_same_framework_needs_no_mapping() -> None:
    got = fitted(state_of("torch", TORCH), state_of("torch", TORCH))
    np.testing.assert_array_equal(got.parameters["dense.weight"], SQUARE)
    assert not np.shares_memory(got.parameters["dense.weight"], SQUARE)


@pytest.mark.fast
def test_own_hyperparameters_may_be_kept() -> None:
    other = state_of("torch", TORCH, hyperparameters={"dense.bias": {"alpha": 0.7}})
    got = fitted(state_of("torch", TORCH), other, hyperparameters="own")
    assert got.hyperparameters == {"dense.bias": {"alpha": 0.7}}
    # what schedules change is not compared
    fitted(state_of("torch", TORCH), state_of("torch", TORCH, hyperparameters={"dense.bias": {"lr": 0.7}}))


def without(name: str) -> Callable[[PortableState], PortableState]:
    def change(state: PortableState) -> PortableState:
        kept = {field: {k: x for k, x in getattr(state, field).items() if k != name} for field in FIELDS}
        return replace(state, **kept)

    return change


FIELDS = ("slots", "parameters", "hyperparameters")


def cast(dtype: str) -> Callable[[PortableState], PortableState]:
    def change(state: PortableState) -> PortableState:
        slots = {name: {slot: x.astype(dtype) for slot, x in own.items()} for name, own in state.slots.items()}
        return replace(state, slots=slots)

    return change


def compensated(state: PortableState) -> PortableState:
    slots = {name: {**own, "compensation": own["velocity"]} for name, own in state.slots.items()}
    return replace(state, slots=slots)


def same(state: PortableState) -> PortableState:
    return state


LONGER = {"dense.weight": np.zeros((3, 4)), "dense.bias": VECTOR}

REFUSED: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "missing": (without("dense.bias"), same, {}, "parameters: missing \\['dense.bias'\\], unexpected \\[\\]"),
    "unexpected": (same, without("dense.bias"), {}, "parameters: missing \\[\\], unexpected \\['dense.bias'\\]"),
    "no parameters": (lambda s: replace(s, parameters={}), same, {}, "missing \\['parameter'\\]"),
    "missing slot": (same, compensated, {}, "slots of 'dense.weight': missing \\['compensation'\\]"),
    "unexpected slot": (compensated, same, {}, "slots of 'dense.weight': .* unexpected \\['compensation'\\]"),
    "dtype": (cast("float32"), same, {}, "velocity of 'dense.weight' has dtype float32 \\(expected float64\\)"),
    "algorithm": (lambda s: replace(s, algorithm="INNAprop"), same, {}, "a state of INNAprop \\(expected INNA,"),
    "damping": (
        lambda s: replace(s, hyperparameters={"dense.bias": {"alpha": 0.7}}),
        same,
        {},
        "alpha 0.7 for 'dense.bias' \\(expected 0.5",
    ),
    "choice": (same, same, {"hyperparameters": "file"}, "Invalid hyperparameters: 'file'"),
    "step": (same, same, {"step": 8}, "Invalid step: 8 \\(expected None: the file says 9\\)"),
    "unknown name": (same, same, {"layout": {"bias": "dense.bias"}}, "Invalid layout: \\['bias'\\]"),
    "name twice": (
        same,
        same,
        {"layout": {"dense.weight": "dense.bias"}},
        "Invalid layout: 'dense.bias' for 'dense.bias' \\(expected once; 'dense.weight'",
    ),
    "unknown layout": (same, same, {"layout": {"dense.weight": ("dense.weight", "conv")}}, "Invalid layout: 'conv'"),
    "layout of other rank": (
        same,
        same,
        {"layout": {"dense.weight": ("dense.weight", "conv2d")}},
        "Invalid layout: 'conv2d' for shape \\(3, 3\\) \\(expected 4 dimensions\\)",
    ),
    "axes": (same, same, {"layout": {"dense.weight": ("dense.weight", (0, 0))}}, "an order of 2 axes"),
    "square matrix from elsewhere": (
        lambda s: replace(s, framework="keras"),
        same,
        {},
        "Invalid layout: none for 'dense.weight' of shape \\(3, 3\\) from keras",
    ),
    "square matrix of which only the name is stated": (
        lambda s: replace(s, framework="optax"),
        same,
        {"layout": {"dense.weight": "dense.weight"}},
        "Invalid layout: none for 'dense.weight'",
    ),
    "arrays": (lambda s: replace(s, framework="arrays"), same, {}, "Invalid layout: none for 'dense.weight'"),
}


@pytest.mark.fast
@pytest.mark.parametrize("row", REFUSED)
def test_states_that_do_not_fit_are_refused(row: str) -> None:
    change, change_own, options, message = REFUSED[row]
    with pytest.raises(ValueError, match=message):
        fitted(change(state_of("torch", TORCH)), change_own(state_of("torch", TORCH)), **options)


@pytest.mark.fast
def test_a_mapping_of_a_bad_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Invalid layout: 3 for 'dense.weight' \(expected a name"):
        fitted(state_of("torch", TORCH), state_of("torch", TORCH), {"dense.weight": 3})  # type: ignore[dict-item]


@pytest.mark.fast
def test_shapes_that_differ_are_refused() -> None:
    other = {name: {"velocity": x} for name, x in LONGER.items()}
    longer = state_of("torch", TORCH, slots=other, parameters=LONGER)
    with pytest.raises(ValueError, match=r"velocity of 'dense.weight' has shape \(3, 3\).*\(expected \(3, 4\)\)"):
        fitted(state_of("torch", TORCH), longer)


@pytest.mark.fast
@pytest.mark.parametrize("pair", [("torch", "torch"), ("keras", "optax"), ("arrays", "keras")])
def test_layouts_without_a_direction_are_refused(pair: tuple[str, str]) -> None:
    kernel = np.zeros((3, 3, 3, 3))
    with pytest.raises(ValueError, match="the named layouts lead from torch or to it"):
        laid_out(kernel, "conv2d", kernel.shape, *pair)
    np.testing.assert_array_equal(laid_out(kernel, (3, 2, 0, 1), kernel.shape, *pair), kernel)


@pytest.mark.fast
def test_mappings_leave_out_what_is_not_in_the_file() -> None:
    layers = [("emb", "e", "embedding"), ("n", "n", "norm"), ("c", "c", "conv2d")]
    got = mapping_of_layers(
        layers, source="torch", target="flax", names={"emb.weight", "n.weight", "n.bias", "c.weight"}
    )
    assert got == {
        "emb.weight": ("e/embedding", "embedding"),
        "n.weight": ("n/scale", "norm"),
        "n.bias": ("n/bias", "same"),
        "c.weight": ("c/kernel", "conv2d"),
    }
    assert mapping_of_layers(layers[2:], source="keras", target="flax")["c/kernel"] == ("c/kernel", "same")
    with pytest.raises(ValueError, match="Invalid layers: kind 'lstm'"):
        mapping_of_layers([("a", "b", "lstm")], source="keras", target="torch")
    with pytest.raises(ValueError, match="Invalid source: 'mxnet'"):
        mapping_of_layers([], source="mxnet", target="torch")


ARGUMENTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], str, str]] = {
    "dense": ((4, 3), (5, 4), "Dense", "linear"),
    "conv1d": ((3, 4, 5), (2, 7, 4), "Conv1D", "conv1d"),
    "conv2d": ((3, 2, 4, 5), (2, 7, 6, 4), "Conv2D", "conv2d"),
    "conv3d": ((3, 2, 2, 4, 5), (2, 5, 4, 3, 4), "Conv3D", "conv3d"),
    "depthwise 1": ((3, 4, 2), (2, 7, 4), "DepthwiseConv1D", "conv1d"),
    "depthwise 2": ((3, 2, 4, 2), (2, 7, 6, 4), "DepthwiseConv2D", "conv2d"),
}
"""By kind of layer: shapes of its kernel and of its inputs in Keras, Keras' layer, torch's function."""


def keras_outputs(name: str, kernel: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Return what a layer of Keras makes of inputs, for a process with a backend."""
    import keras

    kind = getattr(keras.layers, name)
    if name == "Dense":
        layer = kind(kernel.shape[-1], use_bias=False)
    elif name.startswith("Depthwise"):
        size = kernel.shape[:-2] if kernel.ndim > 3 else kernel.shape[0]
        layer = kind(size, depth_multiplier=kernel.shape[-1], use_bias=False)
    else:
        layer = kind(kernel.shape[-1], kernel.shape[:-2], use_bias=False)
    layer.build(inputs.shape)
    layer.kernel.assign(kernel)
    return np.array(keras.ops.convert_to_numpy(layer(inputs)))


@pytest.mark.parametrize("row", ARGUMENTS)
def test_layouts_are_those_of_the_layers(row: str, on_keras: Any) -> None:
    """A layer of Keras and one of torch with the kernel laid out for it make the same of the same inputs."""
    torch = pytest.importorskip("torch", reason="torch is not installed")

    shape, input_shape, keras_name, torch_name = ARGUMENTS[row]
    kernel, inputs = (RNG.standard_normal(x).astype(np.float32) for x in (shape, input_shape))
    kind = row.split()[0]
    want = on_keras("tensorflow", "portable.test_fitting:keras_outputs", keras_name, kernel, inputs)
    own = laid_out(kernel, kind, (), "keras", "torch")
    groups = {"groups": input_shape[-1]} if kind == "depthwise" else {}
    moved = torch.from_numpy(np.ascontiguousarray(np.moveaxis(inputs, -1, 1)))
    got = getattr(torch.nn.functional, torch_name)(moved, torch.from_numpy(np.ascontiguousarray(own)), **groups)
    np.testing.assert_allclose(np.moveaxis(got.numpy(), 1, -1), want, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(laid_out(own, kind, shape, "torch", "keras"), kernel)


@pytest.mark.fast
def test_depthwise_kernels_that_cannot_be_split_are_refused() -> None:
    assert LAYOUTS["depthwise"].grouped
    with pytest.raises(ValueError, match=r"expected one that makes \(3, 3, 4, 2\)"):
        laid_out(np.zeros((6, 1, 3, 3)), "depthwise", (3, 3, 4, 2), "torch", "keras")
