"""README's examples, to be run as they are written."""

import contextlib
import re
import tempfile
from pathlib import Path

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


EXAMPLES = {
    "numpy": "inna_core",
    "torch": "inna_torch",
    "optax": "inna_optax",
    "keras-tensorflow": "inna_keras",
    "keras-jax": "inna_keras",
    "keras-torch": "inna_keras",
}
"""By host: the module whose example runs there."""
