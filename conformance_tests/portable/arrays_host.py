"""The network on NumPy arrays with `inna_core` alone."""

import numpy as np

import inna_core
from conformance_tests.portable import network
from conformance_tests.portable.network import Arrays, Leg
from inna_core import portable
from inna_core.weight_decay import update_with_decay


def run(leg: Leg) -> Arrays:
    """Run a part of a training; return the parameters at its end."""
    training = leg.training
    algorithm = getattr(inna_core, training.algorithm)(**training.hyper)
    params = network.initial_parameters()
    states = {name: algorithm.init(p) for name, p in params.items()}
    fields = [name for name in algorithm.state_type._fields if name != "step"]

    def as_portable(step: int) -> portable.PortableState:
        slots = {name: {slot: getattr(state, slot) for slot in fields} for name, state in states.items()}
        return portable.PortableState(
            "arrays", training.algorithm, step, slots, params, dict.fromkeys(params, training.hyper)
        )

    if leg.load:
        loaded = portable.fitted(portable.load(leg.load), as_portable(0), network.layout(leg.source, "arrays"))
        assert loaded.step == leg.first
        counter = {"step": np.asarray(float(leg.first))} if "step" in algorithm.state_type._fields else {}
        params = dict(loaded.parameters)
        states = {name: algorithm.state_type(**slots, **counter) for name, slots in loaded.slots.items()}
    for k in range(leg.first, leg.last):
        grads = network.gradients(params, *network.batch(k))
        for name, p in params.items():
            delta, states[name] = update_with_decay(
                algorithm, grads[name], states[name], p, training.lr_of(k), training.weight_decay
            )
            params[name] = p + delta
    if leg.save:
        portable.save(leg.save, as_portable(leg.last))
    return params
