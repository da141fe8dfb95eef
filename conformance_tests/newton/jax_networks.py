"""Layers written in JAX, and layers of flax."""

from collections.abc import Callable
from typing import Any

Apply = Callable[[Any, Any], Any]


def jax_layers() -> dict[str, Callable[[Any], tuple[dict[str, Any], Apply, tuple[int, ...]]]]:
    """By name: a function of a random generator that returns weights, the layer, and the shape of its input."""
    import jax
    import jax.numpy as jnp

    nn, flat, images, sequences = jax.nn, (4, 6), (3, 5, 5, 2), (3, 4, 6)

    def weights(rng: Any, **shapes: tuple[int, ...]) -> dict[str, Any]:
        return {name: jnp.asarray(rng.normal(0, 0.5, shape)) for name, shape in shapes.items()}

    def convolution(p: Any, x: Any) -> Any:
        return jax.lax.conv_general_dilated(x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def moments(p: Any, x: Any, axis: Any) -> Any:
        mean, variance = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
        return (x - mean) / jnp.sqrt(variance + 1e-3) * p["scale"] + p["bias"]

    def attention(p: Any, x: Any) -> Any:
        q, k, v = (jnp.einsum("bti,inj->btnj", x, p[name]) for name in "qkv")
        # `jax.nn.dot_product_attention` takes its softmax in float32, whatever it is given
        scores = nn.softmax(jnp.einsum("btnj,bsnj->bnts", q, k), axis=-1)
        return jnp.einsum("bnts,bsnj->btnj", scores, v).reshape(*x.shape[:2], -1) @ p["o"]

    def recurrent(p: Any, x: Any) -> Any:
        def step(h: Any, row: Any) -> Any:
            return (h := jnp.tanh(row @ p["w"] + h @ p["v"])), h

        return jax.lax.scan(step, jnp.zeros((x.shape[0], 5), x.dtype), x.swapaxes(0, 1))[1]

    def pooled(p: Any, x: Any) -> Any:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    activations = {
        name: getattr(nn, name)
        for name in ("relu", "gelu", "silu", "softplus", "softmax", "log_softmax", "elu", "sigmoid", "mish", "selu")
    }
    return {
        "dense": lambda r: (weights(r, w=(6, 5), b=(5,)), lambda p, x: x @ p["w"] + p["b"], flat),
        "convolution": lambda r: (weights(r, w=(3, 3, 2, 3)), convolution, images),
        "max pooling": lambda r: ({}, pooled, images),
        "layer normalisation": lambda r: (weights(r, scale=(6,), bias=(6,)), lambda p, x: moments(p, x, -1), flat),
        "batch normalisation": lambda r: (
            weights(r, scale=(2,), bias=(2,)),
            lambda p, x: moments(p, x, (0, 1, 2)),
            images,
        ),
        "standardize": lambda r: ({}, lambda p, x: nn.standardize(x), flat),
        "attention": lambda r: (
            weights(r, q=(6, 2, 3), k=(6, 2, 3), v=(6, 2, 3), o=(6, 6)),
            attention,
            sequences,
        ),
        "embedding": lambda r: (
            weights(r, table=(7, 6)),
            lambda p, x: x[:, None] * p["table"][jnp.asarray([[0, 3], [6, 0], [2, 2], [5, 1]])],
            flat,
        ),
        "scan": lambda r: (weights(r, w=(6, 5), v=(5, 5)), recurrent, sequences),
        "checkpoint": lambda r: (
            weights(r, w=(6, 5)),
            lambda p, x: jax.checkpoint(lambda w, x: jnp.tanh(x @ w))(p["w"], x),
            flat,
        ),
        **{name: lambda r, f=f: ({}, lambda p, x: f(x), flat) for name, f in activations.items()},
    }


def flax_layers() -> dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]]:
    """By name: a function of flax.linen that returns a module, and the shape of its input."""
    flat, images, sequences = (4, 6), (3, 5, 5, 2), (3, 4, 6)
    return {
        "flax Dense": (lambda nn: nn.Dense(5), flat),
        "flax Conv": (lambda nn: nn.Conv(3, (3, 3)), images),
        "flax LayerNorm": (lambda nn: nn.LayerNorm(epsilon=1e-3), flat),
        "flax RMSNorm": (lambda nn: nn.RMSNorm(), flat),
        "flax GroupNorm": (lambda nn: nn.GroupNorm(num_groups=2), images),
        "flax BatchNorm": (lambda nn: nn.BatchNorm(use_running_average=False), images),
        "flax MultiHeadDotProductAttention": (lambda nn: nn.MultiHeadDotProductAttention(num_heads=2), sequences),
        "flax GRU": (lambda nn: nn.RNN(nn.GRUCell(5, param_dtype="float64")), sequences),
    }


JAX_LAYERS = (
    *("dense", "convolution", "max pooling", "layer normalisation", "batch normalisation", "standardize", "attention"),
    *("embedding", "scan", "checkpoint", "relu", "gelu", "silu", "softplus", "softmax", "log_softmax", "elu"),
    *("sigmoid", "mish", "selu"),
)


def jax_layer(name: str, rng: Any) -> tuple[dict[str, Any], Apply, tuple[int, ...]]:
    import jax
    import jax.numpy as jnp

    if not name.startswith("flax"):
        layers = jax_layers()
        assert set(layers) == set(JAX_LAYERS)
        return layers[name](rng)
    from flax import linen  # pyright: ignore[reportMissingImports]

    make, shape = flax_layers()[name]
    module = make(linen)
    variables = module.init(jax.random.key(0), jnp.ones(shape))
    fixed = {key: value for key, value in variables.items() if key != "params"}
    leaves, treedef = jax.tree.flatten(variables["params"])
    weights = {str(i): jnp.asarray(rng.normal(0, 0.5, leaf.shape)) for i, leaf in enumerate(leaves)}

    def apply(p: Any, x: Any) -> Any:
        params = treedef.unflatten([p[str(i)] for i in range(len(leaves))])
        return module.apply({**fixed, "params": params}, x, mutable=list(fixed))[0]

    return weights, apply, shape
