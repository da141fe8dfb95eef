"""The README's examples run as they are written."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parent.parent / "README.md"

# what each example takes for granted, by the module it imports
PRELUDES = {
    "inna_torch": """
import torch
model, loss_fn, x, y = torch.nn.Linear(2, 1), torch.nn.MSELoss(), torch.ones(4, 2), torch.zeros(4, 1)
""",
    "inna_optax": """
import jax.numpy as jnp, optax
params = {"w": jnp.ones(3)}
grads = params
""",
    "inna_keras": """
import keras, numpy as np, os, tempfile
os.chdir(tempfile.mkdtemp())
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
x, y = np.ones((4, 2)), np.zeros((4, 1))
""",
    "inna_core": """
import numpy as np
theta = grad = np.ones(3)
""",
}

NEEDS = {"inna_torch": "torch", "inna_optax": "optax", "inna_keras": "keras", "inna_core": "numpy"}
BACKENDS = ("jax", "torch", "tensorflow")


def example(module: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if f"from {module} import" in block]
    return found


def run(module: str) -> None:
    exec(PRELUDES[module] + example(module), {})


@pytest.mark.parametrize("module", PRELUDES)
def test_example(module: str, workers: Callable[..., Any]) -> None:
    if find_spec(NEEDS[module]) is None:
        pytest.skip(f"{NEEDS[module]} is not installed")
    backend = next((name for name in BACKENDS if find_spec(name)), None)
    if module == "inna_keras" and backend is None:
        pytest.skip("Keras has no backend installed")
    env = {"KERAS_BACKEND": backend} if module == "inna_keras" else {"JAX_ENABLE_X64": "0"}
    workers(env).call(f"{__name__}:run", module)


def test_every_example_is_run() -> None:
    assert README.read_text(encoding="utf-8").count("```python") == len(PRELUDES)
