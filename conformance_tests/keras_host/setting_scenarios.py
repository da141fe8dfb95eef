"""How the Keras optimizers are configured, set and loaded; as `scenarios.py`."""

from typing import Any

import keras
import numpy as np

import inna_keras
from conformance_tests.keras_host.scenarios import OPTIMIZERS, read, steps, variables


def config_round_trip(name: str) -> dict[str, Any]:
    schedule = inna_keras.PowerDecay(0.1, 0.25)
    optimizer = OPTIMIZERS[name](learning_rate=schedule, weight_decay=0.1, clipnorm=1.0, kahan_sum=True)
    serialized: Any = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(serialized)
    return {
        "same": again.get_config() == optimizer.get_config(),
        "from_config": type(optimizer).from_config(optimizer.get_config()).get_config() == optimizer.get_config(),
        "registered": serialized["registered_name"],
        "got": steps(again),
        "want": steps(optimizer),
        "by_string": type(keras.optimizers.get(f"inna>{name}")).__name__,
    }


def set_dampings(name: str) -> dict[str, Any]:
    optimizer = OPTIMIZERS[name]()
    optimizer.alpha, optimizer.beta, optimizer.weight_decay = 1, 0.3, 0.25
    messages = []
    for attribute, bad in (("alpha", -1.0), ("beta", 0.0), ("weight_decay", -0.5), ("weight_decay", "0.5")):
        try:
            setattr(optimizer, attribute, bad)
        except (ValueError, TypeError) as error:
            messages.append(str(error))
    want = OPTIMIZERS[name](alpha=1.0, beta=0.3, weight_decay=0.25)
    same = {**optimizer.get_config(), "name": ""} == {**want.get_config(), "name": ""}
    return {"messages": messages, "same": same, "got": steps(optimizer), "want": steps(want)}


def set_rate(name: str) -> dict[str, Any]:
    optimizer, own = OPTIMIZERS[name](learning_rate=0.5), variables()
    optimizer.learning_rate = 0.03
    messages = []
    for bad in (-0.1, float("nan"), "0.1"):
        try:
            optimizer.learning_rate = bad
        except (ValueError, TypeError) as error:
            messages.append(str(error))
    return {
        "messages": messages,
        "got": steps(optimizer, own=own),
        "want": steps(OPTIMIZERS[name](learning_rate=0.03)),
    }


def load_what_does_not_fit(name: str) -> dict[str, Any]:
    """Load variables of which the last has another shape."""
    optimizer, own = OPTIMIZERS[name](), variables()
    steps(optimizer, own=own)
    before = [read(v) for v in optimizer.variables]
    store: dict[str, np.ndarray] = {str(i): x + 1 for i, x in enumerate(before)}
    store[str(len(before) - 1)] = np.zeros((9, 9), "float32")
    try:
        optimizer.load_own_variables(store)
        message = ""
    except ValueError as error:
        message = str(error)
    return {"message": message, "got": [read(v) for v in optimizer.variables], "want": before}


def momentum_beside_published_decay(name: str, first: dict[str, Any], then: dict[str, Any]) -> tuple[str, Any, Any]:
    """What is raised where one is set after the other, and what the optimizer has then."""
    optimizer = getattr(inna_keras, name)(0.1, **first)
    (attribute, value), message = *then.items(), ""
    try:
        setattr(optimizer, attribute, value)
    except ValueError as error:
        message = str(error)
    return message, optimizer.momentum, optimizer.published_decay


def momentum_in_config(name: str) -> list[Any]:
    """Alpha, beta, momentum and lead: of a copy by configuration, after alpha is set, and after momentum is."""

    def dampings(optimizer: Any) -> tuple[Any, ...]:
        return optimizer.alpha, optimizer.beta, optimizer.momentum, optimizer.lead

    optimizer = getattr(inna_keras, name)(0.1, momentum=0.9, lead=3.0)
    optimizer.momentum = 0.8
    copied = type(optimizer).from_config(optimizer.get_config())
    found = [dampings(copied)]
    copied.alpha = 0.5
    found.append(dampings(copied))
    copied.momentum = 0.7
    return [*found, dampings(copied)]
