"""The README's examples run as they are written."""

import contextlib
import re
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"

# what each example takes for granted, by the module it imports
PRELUDES = {
    "inna_torch": """
import torch
model, loss_fn, x, y = torch.nn.Linear(2, 1), torch.nn.MSELoss(), torch.ones(4, 2), torch.zeros(4, 1)
""",
    "inna_optax": """
import jax.numpy as jnp
params = {"w": jnp.ones(3)}
grads = params
""",
    "inna_keras": """
import keras, numpy as np
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
x, y = np.ones((4, 2)), np.zeros((4, 1))
""",
    "inna_core": """
import numpy as np
theta = grad = np.ones(3)
""",
}


def example(module: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if f"from {module} import" in block]
    return found


def run(module: str) -> None:
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        exec(PRELUDES[module] + example(module), {})


ROWS = [
    pytest.param("inna_torch", ("torch",), {}, id="torch"),
    pytest.param("inna_optax", ("optax",), {}, id="optax"),
    *(
        pytest.param("inna_keras", ("keras", name), {"KERAS_BACKEND": name}, id=f"keras-{name}")
        for name in ("tensorflow", "jax", "torch")
    ),
    pytest.param("inna_core", ("numpy",), {}, id="numpy"),
]


@pytest.mark.parametrize(("module", "needed", "env"), ROWS)
def test_example(module: str, needed: tuple[str, ...], env: dict[str, str], workers: Callable[..., Any]) -> None:
    for package in needed:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    # as users have it: without the float64 that this suite switches on
    workers({"JAX_ENABLE_X64": "0", **env}).call(f"{__name__}:run", module)


def test_every_example_is_run() -> None:
    assert README.read_text(encoding="utf-8").count("```python") == len(PRELUDES)
