"""Arguments that summary-Newton has in every host."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from conformance_tests.newton.torch_networks import torch_model
from inna_core import INNA, StepSizes
from inna_core.newton import DAMPING


def torch_class() -> Any:
    return pytest.importorskip("inna_torch", reason="torch is not installed").NewtonSummary


def torch_optimizer(**options: Any) -> Any:
    model, loss = torch_model()
    return torch_class()(model.parameters(), loss, **options)


def optax_function() -> Any:
    return pytest.importorskip("inna_optax", reason="optax is not installed").newton_summary


@dataclass(frozen=True)
class Host:
    """Summary-Newton in a host.

    Attributes:
        function: returns the public class or function.
        construct: calls it with some of its keywords.
    """

    function: Callable[[], Any]
    construct: Callable[..., Any]


CONSTRUCTORS = {
    "torch": Host(torch_class, torch_optimizer),
    "optax": Host(optax_function, lambda **options: optax_function()(**options)),
}

CONSTRUCTOR_REFUSALS = [
    ("damping", -0.1, ValueError),
    ("damping", "x", TypeError),
    ("rule", {"period": 3}, TypeError),
    ("rule", StepSizes, TypeError),
    ("rule", None, TypeError),
    ("algorithm", INNA, TypeError),
    ("algorithm", "INNA", TypeError),
]


@pytest.mark.parametrize(("argument", "value", "error"), CONSTRUCTOR_REFUSALS)
@pytest.mark.parametrize("host", CONSTRUCTORS)
def test_constructors_refuse(host: str, argument: str, value: Any, error: type[Exception]) -> None:
    CONSTRUCTORS[host].function()  # or skip
    with pytest.raises(error, match=f"Invalid {argument}: "):
        CONSTRUCTORS[host].construct(**{argument: value})


@pytest.mark.parametrize("host", CONSTRUCTORS)
def test_the_default_rule_is_that_of_the_core(host: str) -> None:
    parameters = inspect.signature(CONSTRUCTORS[host].function()).parameters
    assert parameters["rule"].default == StepSizes()
    assert parameters["damping"].default == DAMPING
