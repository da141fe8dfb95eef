"""Paths: the implementations of a step of a batch of parameters.

Each module has a function

    plan(batch: Batch, hyper: Hyperparameters) -> Callable[[], None] | None

that returns the batch's step, in place, or None where this path would be inaccurate or does not apply. It changes
nothing. `select` asks them in order.
"""
