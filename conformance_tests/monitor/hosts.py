"""Runs on the linear regression of `reference`, monitored, on the hosts that need no process of their own."""

from typing import Any

from conformance_tests.monitor.reference import EVERY, N_STEPS, START, Setting, X, Y

Samples = list[dict[str, float]]


def torch_samples(setting: Setting, **options: Any) -> Samples:
    import torch

    import inna_torch

    model = torch.nn.Linear(4, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(START.T))
    x, y = torch.tensor(X), torch.tensor(Y)
    optimizer = getattr(inna_torch, setting.algorithm)(
        model.parameters(), lr=setting.lr, weight_decay=0.0, **setting.hyper, **options
    )

    def loss() -> torch.Tensor:
        return torch.nn.functional.mse_loss(model(x), y)

    with inna_torch.Monitor(optimizer, model, loss, every=EVERY, sharpness_every=EVERY) as monitor:
        for _ in range(N_STEPS):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    return [sample._asdict() for sample in monitor.history]


def optax_samples(setting: Setting, *, jit: bool = False, inject: bool = False) -> Samples:
    import jax
    import jax.numpy as jnp
    import optax

    import inna_optax

    def factory(learning_rate: Any, momentum: Any = None) -> optax.GradientTransformationExtraArgs:
        hyper = {**setting.hyper, **({} if momentum is None else {"momentum": momentum})}
        transform = getattr(inna_optax, setting.algorithm.lower())(learning_rate, weight_decay=0.0, **hyper)
        return inna_optax.monitor(transform, every=EVERY, sharpness_every=EVERY)

    build = optax.inject_hyperparams(factory, hyperparam_dtype=jnp.float64) if inject else factory
    optimizer = build(setting.lr, setting.hyper.get("momentum"))

    def loss(params: Any) -> jax.Array:
        return jnp.mean((jnp.asarray(X) @ params["w"] - Y) ** 2)

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params, value=value, value_fn=loss)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    params: Any = {"w": jnp.asarray(START)}
    state, samples = optimizer.init(params), []
    for k in range(N_STEPS + 1):  # a sample is taken before the update
        params, state = step(params, state)
        if k and k % EVERY == 0:
            samples.append({name: float(x) for name, x in optax.tree.get(state, "metrics")._asdict().items()})
    return samples
