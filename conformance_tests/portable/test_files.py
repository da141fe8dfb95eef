"""What a file keeps, and which files are refused."""

import hashlib
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="safetensors is not installed")
ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

from inna_core import portable  # noqa: E402
from inna_core.portable.file import NO_DIGEST, decode, encode  # noqa: E402
from inna_core.portable.state import DTYPES, PortableState  # noqa: E402

pytestmark = pytest.mark.fast


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def random_bits(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of random bits: all kinds of NaN, infinities and subnormal numbers are among them."""
    size = dtype_of(dtype).itemsize
    raw = np.random.default_rng(0).bytes(size * int(np.prod(shape, dtype=int)))
    return np.frombuffer(raw, dtype_of(dtype)).reshape(shape)


def example(parameters: bool = True) -> PortableState:
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((2, 3)) for name in ("dense/kernel", "dense/bias")}
    return PortableState(
        "keras",
        "INNAprop",
        7,
        {name: {"velocity": x, "second_moment": x**2} for name, x in arrays.items()},
        arrays if parameters else {},
        {name: {"alpha": 0.1, "beta": 0.9, "momentum": None, "published_decay": False} for name in arrays},
        {"dense/bias": 5},
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (300,), (2, 3, 4)])
def test_arrays_come_back_bit_by_bit(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = random_bits(dtype, shape)
    turned = array.T.copy().T
    state = PortableState("arrays", "INNA", 2**40, {"a/b.ç": {"velocity": turned, "compensation": array}}, {}, {})
    portable.save(tmp_path / "state", state)
    loaded = portable.load(tmp_path / "state")
    assert (loaded.framework, loaded.algorithm, loaded.step) == ("arrays", "INNA", 2**40)
    for slot in ("velocity", "compensation"):
        got = loaded.slots["a/b.ç"][slot]
        assert (got.dtype, got.shape) == (array.dtype, shape)
        assert got.tobytes() == array.tobytes()
        assert got.flags.writeable


def test_everything_else_comes_back() -> None:
    for parameters in (True, False):
        state = example(parameters)
        got = decode(encode(state))
        for name in ("framework", "algorithm", "step", "steps", "hyperparameters"):
            assert getattr(got, name) == getattr(state, name)
        assert got.parameters.keys() == state.parameters.keys()
        for name, array in state.parameters.items():
            np.testing.assert_array_equal(got.parameters[name], array)
    unknown = PortableState("torch", "INNA", None, {"w": {"velocity": np.zeros(1)}})
    assert decode(encode(unknown)).step is None


def test_the_file_is_one_of_safetensors(tmp_path: Path) -> None:
    """Others can read the tensors by their documented names."""
    from safetensors.numpy import load_file

    portable.save(tmp_path / "state", example())
    tensors = load_file(tmp_path / "state")
    kinds = ("parameter", "second_moment", "velocity")
    assert sorted(tensors) == [f"dense/{name}/{kind}" for name in ("bias", "kernel") for kind in kinds]
    np.testing.assert_array_equal(tensors["dense/kernel/velocity"], example().slots["dense/kernel"]["velocity"])


def refused(data: bytes) -> bool:
    try:
        decode(data)
    except ValueError:
        return True
    return False


def test_a_change_of_any_byte_is_refused() -> None:
    data, rng = encode(example()), np.random.default_rng(1)
    changes = rng.integers(1, 256, len(data))
    for i, change in enumerate(changes):
        assert refused(data[:i] + bytes([data[i] ^ int(change)]) + data[i + 1 :]), i


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_a_file_cut_off_or_prolonged_is_refused(dtype: str) -> None:
    slots = {"w": {"velocity": random_bits(dtype, (5,))}}
    data = encode(PortableState("arrays", "INNA", 1, slots))
    for length in range(len(data)):
        assert refused(data[:length]), length
    assert refused(data + b"\0")


def signed(tensors: dict[str, np.ndarray], **metadata: Any) -> bytes:
    """Return a file with a right digest, whatever is in it."""
    from safetensors.numpy import save

    known = {
        "format": "inna-state",
        "version": "1",
        "framework": "arrays",
        "algorithm": "INNA",
        "step": "1",
        "steps": "{}",
        "hyperparameters": "{}",
        "complex": "[]",
        "sha256": NO_DIGEST,
    }
    data = save(tensors, {name: x for name, x in {**known, **metadata}.items() if x is not None})
    return data.replace(NO_DIGEST.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


class Executed:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


V = {"w/velocity": np.zeros(2)}

FOREIGN: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda _: b"", "which is cut off or of another kind"),
    "zeros": (lambda _: bytes(1000), "which is cut off or of another kind"),
    "pickle": (lambda path: pickle.dumps(Executed(path)), "which is cut off or of another kind"),
    "text": (lambda _: b"lr: 0.1\n" * 50, "which is cut off or of another kind"),
    "huge header": (lambda _: struct.pack("<Q", 2**63) + b"{}", "which is cut off or of another kind"),
    "deep header": (lambda _: struct.pack("<Q", 10**5) + b"[" * 10**5, "which is cut off or of another kind"),
    "other safetensors": (lambda _: signed(V, format=None), "which is cut off or of another kind"),
    "other format": (lambda _: signed(V, format="other"), "of format 'other' (expected 'inna-state')"),
    "later version": (lambda _: signed(V, version="2"), "of version '2' (expected '1'"),
    "no digest": (lambda _: signed(V, sha256="abc"), "whose SHA-256 is damaged"),
    "no slot in a name": (lambda _: signed({"w": np.zeros(2)}), "whose content does not fit"),
    "no slots": (lambda _: signed({"w/parameter": np.zeros(2)}), "whose content does not fit"),
    "integers": (lambda _: signed({"w/velocity": np.zeros(2, int)}), "dtype I64"),
    "shapes": (lambda _: signed({**V, "w/compensation": np.zeros(3)}), "shapes [(2,), (3,)]"),
    "step": (lambda _: signed(V, step="-1"), "Invalid step: -1"),
    "step of a bad type": (lambda _: signed(V, step='"1"'), "Invalid step: '1'"),
    "framework": (lambda _: signed(V, framework="mxnet"), "Invalid framework: 'mxnet'"),
    "no algorithm": (lambda _: signed(V, algorithm=None), "algorithm"),
    "JSON": (lambda _: signed(V, steps="{"), "whose content does not fit"),
    "JSON of a bad type": (lambda _: signed(V, steps="[1]"), "whose content does not fit"),
    "hyperparameters": (lambda _: signed(V, hyperparameters='{"w": {"alpha": "x"}}'), "Invalid hyperparameters"),
    "hyperparameters of nobody": (lambda _: signed(V, hyperparameters='{"x": {}}'), "Invalid hyperparameters: 'x'"),
}


@pytest.mark.parametrize("row", FOREIGN)
def test_foreign_files_are_refused_and_nothing_in_them_is_executed(row: str, tmp_path: Path) -> None:
    make, message = FOREIGN[row]
    path = tmp_path / "state"
    path.write_bytes(make(tmp_path / "trace"))
    with pytest.raises(ValueError, match=re.escape(f"Invalid path: '{path}', ") + ".*" + re.escape(message)):
        portable.load(path)
    assert not (tmp_path / "trace").exists()


def test_a_file_signed_as_here_is_read() -> None:
    """Or the rows above might be refused for their digest alone."""
    assert decode(signed(V)).slots.keys() == {"w"}


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        portable.load(tmp_path / "state")


INVALID: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "framework": ({"framework": "mxnet"}, ValueError, "Invalid framework: 'mxnet'"),
    "algorithm": ({"algorithm": ""}, TypeError, "Invalid algorithm: ''"),
    "step": ({"step": 1.0}, TypeError, "Invalid step: 1.0"),
    "negative step": ({"step": -1}, ValueError, "Invalid step: -1"),
    "name": ({"slots": {"": {"velocity": np.zeros(1)}}}, TypeError, "Invalid slots: ''"),
    "no slots": ({"slots": {"w": {}}}, ValueError, "Invalid slots\\['w'\\]: none"),
    "slot": ({"slots": {"w": {"a/b": np.zeros(1)}}}, ValueError, "'a/b'"),
    "list": ({"slots": {"w": {"velocity": [1.0]}}}, TypeError, "velocity.*list"),
    "integers": ({"slots": {"w": {"velocity": np.zeros(1, int)}}}, TypeError, "dtype int64"),
    "parameters": ({"parameters": {"b": np.zeros(2)}}, ValueError, "Invalid parameters: \\['b', 'w'\\]"),
    "parameter's shape": ({"parameters": {"w": np.zeros(3)}}, ValueError, "shape \\(3,\\) \\(expected \\(2,\\)"),
    "steps": ({"steps": {"b": 1}}, ValueError, "Invalid steps: 'b'"),
    "hyperparameters": ({"hyperparameters": {"w": {"lr": "x"}}}, TypeError, "Invalid hyperparameters"),
}


@pytest.mark.parametrize("row", INVALID)
def test_states_whose_parts_do_not_fit_are_refused(row: str) -> None:
    change, kind, message = INVALID[row]
    given = {"framework": "arrays", "algorithm": "INNA", "step": 1, "slots": {"w": {"velocity": np.zeros(2)}}}
    with pytest.raises(kind, match=message):
        PortableState(**{**given, **change})  # type: ignore[arg-type]


def test_without_safetensors_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r'portable states need safetensors: .*"inna\[portable\]"'):
        encode(example())


def test_numbers_are_kept_exactly() -> None:
    numbers = {"lr": 0.1, "eps": 5e-324, "beta": 1.7976931348623157e308}
    state = PortableState("arrays", "INNA", 1, {"w": {"velocity": np.zeros(1)}}, {}, {"w": numbers})
    assert decode(encode(state)).hyperparameters["w"] == numbers
