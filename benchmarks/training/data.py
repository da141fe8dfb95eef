"""Where the data sets come from: a folder of the user's, the system's packages, or a framework's own download.

All loaders raise MissingDataError if a data set is not there and cannot be downloaded.
"""

import gzip
import io
import os
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

CHECKOUT = Path(__file__).resolve().parents[2]
SYSTEM_FASHION = Path("/usr/share/datasets/fashion-mnist")
IDX = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


class MissingDataError(Exception):
    """A data set is nowhere to be found; the message says how to get it."""


@dataclass(frozen=True)
class Images:
    """Images as uint8 (n, height, width) or (n, height, width, 3), and integer labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def folder() -> Path:
    """Return the folder of the data: what INNA_DATA names, or shared/data beside the checkout."""
    return Path(os.environ.get("INNA_DATA") or CHECKOUT.parent / "shared" / "data")


def missing(name: str, how: str) -> MissingDataError:
    return MissingDataError(f"{name} was not found in {folder()} (the environment variable INNA_DATA). {how}")


def mnist() -> Images:
    """Return MNIST."""
    path = folder() / "mnist_60k.npz"
    if path.exists():
        with np.load(path) as file:
            return Images(*(file[name] for name in ("x_train", "y_train", "x_test", "y_test")))
    return downloaded("MNIST", "mnist", "mnist_60k.npz (arrays x_train, y_train, x_test, y_test; 28 x 28, uint8)")


def fashion() -> Images:
    """Return Fashion-MNIST."""
    for place in (folder(), folder() / "fashion-mnist", SYSTEM_FASHION):
        files = [place / f"{name}-ubyte.gz" for name in IDX]
        if all(file.exists() for file in files):
            return Images(*(idx(file) for file in files))
    return downloaded(
        "FashionMNIST",
        "fashion_mnist",
        "its four idx files (on Debian and Ubuntu: apt-get install dataset-fashion-mnist, found without INNA_DATA)",
    )


def idx(path: Path) -> np.ndarray:
    """Return the array of an idx file: a big-endian header with the sizes, then bytes."""
    raw = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def cifar10(train: int, test: int) -> Images:
    """Return the first so many images of CIFAR-10 for training and for testing."""
    path = folder() / "cifar10_60k_jpeg.npz"
    if not path.exists():
        whole = downloaded("CIFAR10", "cifar10", "cifar10_60k_jpeg.npz (JPEG bytes jpg_*, offsets off_*, labels y_*)")
        return Images(whole.x_train[:train], whole.y_train[:train], whole.x_test[:test], whole.y_test[:test])
    with np.load(path) as file:
        arrays = (
            jpegs(file["jpg_train"], file["off_train"][: train + 1]),
            file["y_train"][:train],
            jpegs(file["jpg_test"], file["off_test"][: test + 1]),
            file["y_test"][:test],
        )
        return Images(*arrays)


def jpegs(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    from PIL import Image

    raw = data.tobytes()
    return np.stack([np.asarray(Image.open(io.BytesIO(raw[a:b])).convert("RGB")) for a, b in pairwise(offsets)])


def shakespeare() -> str:
    """Return the text of tiny Shakespeare."""
    path = folder() / "tinyshakespeare.txt"
    if not path.exists():
        how = (
            "Save data/tinyshakespeare/input.txt of github.com/karpathy/char-rnn as tinyshakespeare.txt in a folder, "
            "and set INNA_DATA to it."
        )
        raise missing("tinyshakespeare.txt", how)
    return path.read_text(encoding="utf-8")


def downloaded(torchvision_name: str, keras_name: str, what: str) -> Images:
    """Return a data set by way of torchvision or Keras, whichever is installed."""
    why = ""
    try:
        if find_spec("torchvision") is not None:
            return from_torchvision(torchvision_name)
        if find_spec("keras") is not None:
            return from_keras(keras_name)
    except Exception as error:  # whatever a download of others raises: the user needs the way round it
        why = f" The download failed ({type(error).__name__}: {error})."
    how = f"Put {what} into a folder and set INNA_DATA to it, or install torchvision or Keras, which download it.{why}"
    raise missing(torchvision_name, how)


def from_torchvision(name: str) -> Images:
    import torchvision.datasets  # pyright: ignore[reportMissingImports]

    make: Any = getattr(torchvision.datasets, name)
    train, test = (make(str(Path.home() / ".cache" / "inna"), train=part, download=True) for part in (True, False))
    arrays = (train.data, train.targets, test.data, test.targets)
    return Images(*(np.asarray(array) for array in arrays))


def from_keras(name: str) -> Images:
    import importlib

    (x_train, y_train), (x_test, y_test) = importlib.import_module(f"keras.datasets.{name}").load_data()
    return Images(x_train, y_train.ravel(), x_test, y_test.ravel())
