"""Reading and writing files of `PortableState`; the format is described in `inna_core.portable`."""

import hashlib
import importlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from inna_core.portable.state import DTYPES, PortableState

FORMAT, VERSION = "inna-state", "1"
NO_DIGEST = "0" * 64

STORED = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""safetensors' names of dtypes."""


def save(path: str | os.PathLike[str], state: PortableState) -> None:
    """Write a state to a file atomically.

    The bytes go to a temporary file in the same folder, which is flushed to the disk and then renamed to `path`. So
    `path` always holds the complete old file or the complete new one, even if this process is killed or two processes
    save to one path. A killed process may leave a temporary file, ``.inna-*.tmp``, behind.

    Args:
        path: of the file, replaced if there is one.
        state: what to save.

    Raises:
        OSError: if the file cannot be written (no folder, no permission, no space); `path` is then unchanged, and
            the temporary file removed.
        ImportError: if safetensors is not installed.

    Example:
        >>> import numpy as np, tempfile
        >>> state = PortableState("arrays", "INNA", 3, {"theta": {"velocity": np.ones(2)}})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/state.safetensors", state)
        ...     load(f"{folder}/state.safetensors").slots["theta"]["velocity"]
        array([1., 1.])
    """
    write_atomically(path, encode(state))


def load(path: str | os.PathLike[str]) -> PortableState:
    """Read a state from a file that `save` wrote.

    Args:
        path: of the file.

    Returns:
        The saved state, bit for bit.

    Raises:
        ValueError: if `save` did not write the file, its version is another, it is cut off, or a byte has changed.
        OSError: if it cannot be read.
        ImportError: if safetensors is not installed, or ml_dtypes where there are bfloat16 arrays.
    """
    data = Path(path).read_bytes()
    try:
        return decode(data)
    except ValueError as error:
        raise ValueError(f"Invalid path: {os.fspath(path)!r}, {error}") from error


def encode(state: PortableState) -> bytes:
    """Return a state as the bytes of a file."""
    tensors: dict[str, np.ndarray] = {}
    complex_names = []
    for name, slots in state.arrays().items():
        for slot, values in slots.items():
            key = f"{name}/{slot}"
            array: Any = np.array(values, order="C")
            if array.dtype.kind == "c":
                complex_names.append(key)
                array = array[..., None].view(array.real.dtype)
            tensors[key] = array.astype(array.dtype.newbyteorder("<"))
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "framework": state.framework,
        "algorithm": state.algorithm,
        "step": json.dumps(state.step),
        "steps": json.dumps(dict(state.steps)),
        "hyperparameters": json.dumps({name: dict(numbers) for name, numbers in state.hyperparameters.items()}),
        "complex": json.dumps(complex_names),
        "sha256": NO_DIGEST,
    }
    data = safetensors("numpy").save(tensors, metadata)
    marked = f'"sha256":"{NO_DIGEST}"'.encode()
    return data.replace(marked, marked.replace(NO_DIGEST.encode(), hashlib.sha256(data).hexdigest().encode()), 1)


def decode(data: bytes) -> PortableState:
    """Return the state in the bytes of a file; errors say what is wrong and what was expected."""
    metadata = checked_metadata(data)
    try:
        tensors = safetensors().deserialize(data)
        step, steps, hyperparameters, complex_names = (
            json.loads(metadata[key]) for key in ("step", "steps", "hyperparameters", "complex")
        )
        slots: dict[str, dict[str, np.ndarray]] = {}
        for key, entry in tensors:
            name, slot = key.rsplit("/", 1)
            slots.setdefault(name, {})[slot] = as_array(entry, key in complex_names)
        parameters = {name: own.pop("parameter") for name, own in slots.items() if "parameter" in own}
        own = metadata["framework"], metadata["algorithm"], step
        return PortableState(*own, slots, parameters, hyperparameters, steps)
    except (safetensors().SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"whose content does not fit: {error} (expected a file that save wrote)") from error


def checked_metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a file whose format, version and digest are right."""
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    try:
        metadata = json.loads(header)["__metadata__"]
        format_, version, digest = metadata["format"], metadata["version"], metadata["sha256"].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("which is cut off or of another kind (expected a file that save wrote)") from error
    if format_ != FORMAT:
        raise ValueError(f"of format {format_!r} (expected {FORMAT!r})")
    if version != VERSION:
        raise ValueError(f"of version {version!r} (expected {VERSION!r}, the one that this release reads)")
    if len(digest) != len(NO_DIGEST) or header.count(digest) != 1:
        raise ValueError("whose SHA-256 is damaged (expected one, once)")
    at = 8 + header.index(digest)
    hashed = hashlib.sha256(data[:at])
    hashed.update(NO_DIGEST.encode())
    hashed.update(memoryview(data)[at + len(digest) :])
    if hashed.hexdigest().encode() != digest:
        raise ValueError(f"which has changed since it was saved: SHA-256 {hashed.hexdigest()} (expected {digest!r})")
    return metadata


def as_array(entry: dict[str, Any], is_complex: bool) -> np.ndarray:
    if entry["dtype"] not in STORED:
        raise ValueError(f"dtype {entry['dtype']} (expected one of {', '.join(STORED)})")
    dtype = numpy_dtype(STORED[entry["dtype"]])
    array = np.frombuffer(entry["data"], dtype.newbyteorder("<")).astype(dtype).reshape(entry["shape"])
    return array.view(np.result_type(dtype, np.complex64))[..., 0] if is_complex else array


def numpy_dtype(name: str) -> np.dtype:
    """Return NumPy's dtype of a name; that of bfloat16 comes from ml_dtypes."""
    if name not in DTYPES:
        raise TypeError(f"Invalid dtype: {name} (expected one of {', '.join(DTYPES)})")
    return np.dtype(imported("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def safetensors(module: str | None = None) -> Any:
    return imported("safetensors" if module is None else f"safetensors.{module}")


def imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise ImportError(f'portable states need {package}: python -m pip install "inna[portable]"') from error


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file such that its path holds either the old bytes or the new ones at any time."""
    target = os.path.realpath(path)  # a link stays a link
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".inna-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
