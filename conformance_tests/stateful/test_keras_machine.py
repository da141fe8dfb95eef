"""The Keras optimizers under random orders of operations, on each backend in a process of its own."""

from itertools import product
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

ROWS = [
    ("torch", "INNAprop", 12, 12),
    *(
        pytest.param(*row, 150, 30, marks=pytest.mark.nightly)
        for row in product(("tensorflow", "jax", "torch"), ("INNA", "INNAprop"))
    ),
]


@pytest.mark.parametrize(("backend", "name", "examples", "steps"), ROWS)
def test_any_order_of_operations_gives_what_the_equations_say(
    backend: str, name: str, examples: int, steps: int, on_keras: Any
) -> None:
    operations = on_keras(backend, "stateful.keras_machine:run", name, examples, steps)
    print(f"{sum(operations.values())} operations: {operations}")
    assert operations["step"] > examples / 2
