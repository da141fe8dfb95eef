"""Derivatives of a loss along a direction split into groups, on Keras' TensorFlow, JAX and torch backends.

On JAX and TensorFlow the entries g_s of the gradient of phi(mu) = L(theta + sum_s mu_s u_s) are differentiated one by
one, with respect to mu_s, mu_{s+1}, ...; on torch `inna_torch` does it. No layer is patched: operations with wrong
derivatives are replaced by a mode of the calling thread on torch, and in the graph of the loss on TensorFlow. The
equations are in `inna_core.newton.step_sizes`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from inna_core._validation import is_real_floating
from inna_core.newton import Summary, check_order, partition
from inna_keras.newton.autodiff import Tensors

ops: Any = keras.ops  # its annotations cover symbolic tensors only

Rows = tuple[Sequence[Any], list[Sequence[Any]], list[Any]]
"""g; for each s the entries H_ss, ..., H_sS; and T, empty for order 2."""


def summary(
    loss_fn: Callable[[], Any], variables: Any, direction: Sequence[Any], groups: Any = "tensor", *, order: int = 3
) -> Summary:
    """Return the exact derivatives of a loss along a direction, group by group: g, H and T.

    The loss sees the variables theta_s + mu_s u_s, u being the direction, and is differentiated at mu = 0. Variables,
    moving averages, seeds and layers stay as they are. Values under ``stop_gradient`` count as constants.

    Works eagerly and inside ``tf.function`` or ``jax.jit``, on the TensorFlow (where an eager loss is traced), JAX and
    torch backends.

    Args:
        loss_fn: closure that calls the model and returns the loss, a scalar.
        variables: the model, for its trainable variables, or a sequence of variables.
        direction: the tensors u, one per variable. A step in this direction is theta - eta u, so a gradient is a
            direction.
        groups: partition of the variables, see `inna_core.newton.partition`.
        order: 3, or 2 to leave the third derivatives out (T = 0).

    Returns:
        `Summary` of the gradient (S,), Hessian (S, S) and third derivatives (S,), backend tensors.

    Raises:
        ValueError: if shapes or numbers of tensors differ, or order is not 2 or 3.
        TypeError: if a variable is not real floating point.
        NotImplementedError: if the loss calls an operation without correct derivatives, or the backend has no autodiff.

    Reference: Wolinski, arXiv 2312.03885, section 3.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> x = keras.ops.ones((4, 2))
        >>> u = [keras.ops.ones(v.shape) for v in model.trainable_variables]
        >>> along = summary(lambda: keras.ops.mean((model(x) - 1.0) ** 2), model, u)
        >>> tuple(along.hessian.shape)
        (2, 2)
    """
    variables = trainable_variables(variables)
    group_of, _ = partition_of(variables, groups)
    directions = list(direction)
    check_order(order)
    if len(directions) != len(variables):
        raise ValueError(f"Invalid direction: {len(directions)} tensors (expected {len(variables)}, one per variable)")
    for u, v in zip(directions, variables, strict=True):
        if tuple(u.shape) != tuple(v.shape):
            raise ValueError(f"Invalid direction: shape {tuple(u.shape)} for {v.name} (expected {tuple(v.shape)})")

    def loss(moved: Tensors) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, moved, strict=True))):
            return loss_fn()

    return summary_of(loss, [ops.convert_to_tensor(v) for v in variables], directions, group_of, order)


def trainable_variables(variables: Any) -> list[Any]:
    """Return a model's trainable variables, or the given ones.

    Raises:
        NotImplementedError: if a layer of the model changes its weights in the forward pass.
    """
    if not isinstance(variables, keras.layers.Layer):
        return list(variables)
    for layer in variables._flatten_layers():
        if isinstance(layer, keras.layers.SpectralNormalization):
            raise NotImplementedError(
                f"Invalid model: its layer {layer.name} is a SpectralNormalization (expected layers that do not assign "
                "to their weights in the forward pass)"
            )
    return list(variables.trainable_variables)


def partition_of(variables: Sequence[Any], groups: Any) -> tuple[list[int], list[str]]:
    """Return the group of each variable, and the groups' labels."""
    for v in variables:
        if not is_real_floating(v):
            raise TypeError(f"Invalid variables: {v.name} of dtype {v.dtype} (expected a real floating-point dtype)")
    if not variables:
        raise ValueError("Invalid variables: none (expected at least one)")
    return partition([v.path for v in variables], [len(v.shape) for v in variables], groups)


def summary_of(
    loss: Callable[[Tensors], Any], values: Tensors, directions: Tensors, group_of: Sequence[int], order: int
) -> Summary:
    """Return the summary of a loss of the variables' values; directions and groups have been checked."""
    backend = keras.backend.backend()
    if backend == "torch":
        from inna_torch.newton.derivatives import summary_of as torch_summary_of

        return torch_summary_of(loss, [p.detach() for p in values], directions, group_of, order=order)
    if backend not in ("jax", "tensorflow"):
        raise NotImplementedError(f"Invalid backend: {backend!r} (expected 'jax', 'tensorflow' or 'torch')")
    size = max(group_of) + 1
    dtype = "float64" if any("float64" in str(p.dtype) for p in values) else "float32"

    def phi(mu: Tensors) -> Any:
        moved = [p + ops.cast(mu[s], p.dtype) * u for p, u, s in zip(values, directions, group_of, strict=True)]
        return ops.cast(loss(moved), dtype)

    mu = [ops.zeros((), dtype=dtype) for _ in range(size)]
    g, rows, third = {"jax": _jax, "tensorflow": _tensorflow}[backend](phi, mu, order)
    zero = ops.zeros((), dtype=dtype)
    upper = ops.stack([ops.stack([zero] * s + list(row)) for s, row in enumerate(rows)])
    H = upper + ops.transpose(ops.triu(upper, 1))
    return Summary(ops.stack(list(g)), H, ops.stack(third) if order == 3 else ops.zeros((size,), dtype=dtype))


def _jax(phi: Callable[[Tensors], Any], mu: Tensors, order: int) -> Rows:
    import jax

    rows, third = [], []
    for s in range(len(mu)):

        def entry(tail: Tensors, s: int = s) -> Any:
            return jax.grad(lambda own: phi([*mu[:s], own, *tail[1:]]))(tail[0])

        def along(own: Any, s: int = s) -> Any:
            return phi([*mu[:s], own, *mu[s + 1 :]])

        rows.append(jax.grad(entry)(mu[s:]))
        if order == 3:
            third.append(jax.grad(jax.grad(jax.grad(along)))(mu[s]))
    return jax.grad(phi)(mu), rows, third


def _tensorflow(phi: Callable[[Tensors], Any], mu: Tensors, order: int) -> Rows:
    import tensorflow

    tf: Any = tensorflow

    def gradient(of: Any, by: Tensors) -> Tensors:
        return tf.gradients(of, by, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def derivatives() -> Rows:
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        at = [tf.identity(m) for m in mu]
        loss = phi(at)
        _make_variances_differentiable(graph, graph.get_operations()[before:])
        g = gradient(loss, at)
        rows: list[Sequence[Any]] = [gradient(g[s], at[s:]) for s in range(len(at))]
        return g, rows, [gradient(row[0], [at[s]])[0] for s, row in enumerate(rows)] if order == 3 else []

    return tf.function(derivatives)() if tf.executing_eagerly() else derivatives()


def hessian_product(loss: Callable[[Tensors], Any], values: Tensors, vector: Tensors) -> Tensors:
    """Return the Hessian of a loss at some values of variables times a vector; on TensorFlow in a graph only."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jvp(jax.grad(loss), (values,), (vector,))[1]
    if backend == "tensorflow":
        import tensorflow as tf

        def gradients(of: Any, along: Any = None) -> Tensors:  # dense; those of embeddings are sparse
            found = tf.gradients(of, at, along, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return [tf.convert_to_tensor(g) for g in found]

        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        at = [tf.identity(v) for v in values]
        value = loss(at)
        _make_variances_differentiable(graph, graph.get_operations()[before:])
        return gradients(gradients(value), vector)
    if backend == "torch":
        import torch

        from inna_torch.newton.derivatives import eager_and_differentiable_twice, gradients_or_zeros

        with torch.enable_grad(), eager_and_differentiable_twice():
            leaves = [v.detach().requires_grad_() for v in values]
            grads = gradients_or_zeros([loss(leaves)], leaves, create_graph=True)
            return gradients_or_zeros(grads, leaves, vector)
    raise NotImplementedError(f"Invalid backend: {backend!r} (expected 'jax', 'tensorflow' or 'torch')")


def _make_variances_differentiable(graph: Any, operations: Sequence[Any]) -> None:
    """Correct the derivatives of the variances from ``tf.nn.moments`` among some operations of a graph.

    That function computes mean((x - stop_gradient(mean(x)))^2). Its first derivative is right, the higher ones are not,
    so the ``stop_gradient`` is removed.

    Raises:
        NotImplementedError: if there are such variances inside a loop, a branch or a function of the graph.
    """
    for op in operations:
        if op.type != "SquaredDifference" or op.inputs[1].op.type != "StopGradient":
            continue
        mean = op.inputs[1].op.inputs[0]
        if mean.op.type == "Mean" and mean.op.inputs[0].name == op.inputs[0].name:
            op._update_input(1, mean)
    if not any(value.HasField("func") for op in operations for value in op.node_def.attr.values()):
        return
    for function in graph.as_graph_def().library.function:
        constants = {node.name for node in function.node_def if node.op == "StopGradient"}
        for node in function.node_def:
            if node.op == "SquaredDifference" and node.input[1].split(":")[0] in constants:
                raise NotImplementedError(
                    "Invalid loss_fn: it calls tf.nn.moments inside a loop, a branch or a tf.function (expected it "
                    "outside of them: its second derivatives are wrong there)"
                )
