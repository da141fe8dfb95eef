"""Operations whose second or third derivative torch gets wrong or does not have, written out so that it is right.

Native normalisations with batch statistics carry hand-written double backward formulas that cannot be differentiated a
third time: the result is wrong, without an error. Fused attention has no double backward at all. Made of elementary
operations, both are right to any order.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

Tensor = torch.Tensor


def _normalised(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    centred = x - x.mean(dim=tuple(dims), keepdim=True)
    return centred / ((centred * centred).mean(dim=tuple(dims), keepdim=True) + eps).sqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    if weight is not None:
        x = x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """See `torch.nn.functional.layer_norm`."""
    dims = range(-len(normalized_shape), 0)
    return _affine(_normalised(input, dims, eps), weight, bias, tuple(normalized_shape))


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """See `torch.nn.functional.rms_norm`."""
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    x = input / ((input * input).mean(dim=dims, keepdim=True) + eps).sqrt()
    return _affine(x, weight, None, tuple(normalized_shape))


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """See `torch.nn.functional.group_norm`."""
    grouped = input.reshape(input.shape[0], num_groups, -1)
    x = _normalised(grouped, (-1,), eps).reshape(input.shape)
    return _affine(x, weight, bias, _per_channel(input))


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """See `torch.nn.functional.instance_norm`; running statistics are left as they are."""
    if not use_input_stats:
        return _by_running_statistics(input, running_mean, running_var, weight, bias, eps)
    return _affine(_normalised(input, range(2, input.dim()), eps), weight, bias, _per_channel(input))


def functional_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """See `torch.nn.functional.batch_norm`; running statistics are left as they are."""
    if not training:
        return _by_running_statistics(input, running_mean, running_var, weight, bias, eps)
    dims = [i for i in range(input.dim()) if i != 1]
    return _affine(_normalised(input, dims, eps), weight, bias, _per_channel(input))


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """See `torch.batch_norm`, whose arguments come in another order."""
    return functional_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def _per_channel(input: Tensor) -> tuple[int, ...]:
    return (1, -1) + (1,) * (input.dim() - 2)


def _by_running_statistics(
    input: Tensor, mean: Any, variance: Any, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    shape = _per_channel(input)
    return _affine((input - mean.reshape(shape)) / (variance.reshape(shape) + eps).sqrt(), weight, bias, shape)


REWRITTEN: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    functional.rms_norm: rms_norm,
    torch.rms_norm: rms_norm,
    functional.group_norm: group_norm,
    torch.group_norm: group_norm,
    functional.instance_norm: instance_norm,
    functional.batch_norm: functional_batch_norm,
    torch.batch_norm: batch_norm,
}
"""By function that a model calls: the one that is called in its place."""

REFUSED: dict[Callable[..., Any], str] = {
    torch.native_layer_norm: "torch.native_layer_norm",
    torch.native_batch_norm: "torch.native_batch_norm",
    torch.native_group_norm: "torch.native_group_norm",
    torch.instance_norm: "torch.instance_norm",
    torch.batch_norm_stats: "torch.nn.SyncBatchNorm",
    torch.ctc_loss: "ctc_loss",
    functional.ctc_loss: "ctc_loss",
}
"""Functions with wrong or missing derivatives for which no replacement is written here."""


PRODUCTS = frozenset(
    {
        functional.linear,
        functional.bilinear,
        functional.conv1d,
        functional.conv2d,
        functional.conv3d,
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
        torch.mm,
        torch.bmm,
        torch.matmul,
        torch.addmm,
        torch.baddbmm,
        torch.einsum,
        Tensor.mm,
        Tensor.bmm,
        Tensor.matmul,
        Tensor.addmm,
        Tensor.baddbmm,
        Tensor.__matmul__,
        Tensor.__rmatmul__,
    }
)
"""Multilinear (or affine) functions, most of a network's cost; what lies between two of them is a piece. A function
may be missing here, which costs time; one that is not multilinear would be wrong."""


class Product(NamedTuple):
    """A call of one of the `PRODUCTS`.

    Attributes:
        inputs: numbers of its inputs in `Pieces`, without the moved parameters.
        groups: of the moved parameters among its inputs.
    """

    inputs: tuple[int, ...]
    groups: frozenset[int]


class Pieces:
    """The loss in pieces, the products and what lies between them, whose third derivatives are taken each by itself.

    Let z be the tensors where pieces meet, w = d phi / dz their adjoints, and dz, dw their derivatives by mu_s. The
    pieces f: z -> z' make phi the Lagrangian sum of <w', f(z) - z'>, which is stationary in all z and w: an error of
    second order in these has an effect of fourth order, so that the third derivative follows from first ones,

        T_s = sum over pieces d^3/de^3 <w' + e dw', f(z + e dz)> = sum <w', f3(dz, dz, dz)> + 3 <dw', f2(dz, dz)>

    with the derivatives f1, f2, f3 of f. The row H_s has found dz and dw: the derivative of g_s = d phi / d mu_s meets
    each w and each z on its way back, and what arrives there is

        d g_s / dw = dz         d g_s / dz = dw = f1(z)^T dw' + <w', f2(z)(dz, .)>

    The derivative of <dw, dz> in z along dz, with dz and dw' held, is <w', f3(dz, dz, dz)> + <dw', f2(dz, dz)>; that in
    w' along dw' is <dw', f2(dz, dz)>. The former and twice the latter are T_s. All are found in one backward pass that
    never leaves a piece; a product of which one input alone depends on mu_s has f2 = 0 and is left out. So T_s costs
    nothing of what is costly, where the derivative of H_ss would run through the network as often as the row did.
    """

    def __init__(self) -> None:
        self.count = 0
        self.products: list[tuple[Product, int]] = []
        self.row: dict[tuple[int, bool], Tensor] | None = None
        self.local = False
        self.third: Tensor | None = None

    def call(self, function: Callable[..., Any], groups: dict[int, int], args: Any, kwargs: Any) -> Any:
        """Call a product; groups: by id of a moved parameter."""
        inputs: list[int] = []
        moved: set[int] = set()

        def enter(x: Tensor) -> Tensor:
            if id(x) in groups:
                moved.add(groups[id(x)])
                return x
            if not x.requires_grad:
                return x
            inputs.append(self.count)
            return self._border(x)

        result = function(*_pytree.tree_map_only(Tensor, enter, args), **_pytree.tree_map_only(Tensor, enter, kwargs))
        if not isinstance(result, Tensor) or not result.requires_grad:
            return result
        self.products.append((Product(tuple(inputs), frozenset(moved)), self.count))
        return self._border(result)

    def _border(self, z: Tensor) -> Tensor:
        self.count += 1
        return _Border.apply(z, self, self.count - 1, False)  # pyright: ignore[reportReturnType]

    def begin_row(self) -> None:
        """From now on tangents are kept, and what arrives goes on as a constant."""
        self.row, self.local = {}, False

    def third_derivative(self, second: Tensor, mu: Tensor, group: int) -> Tensor:
        """Return T_s.

        Args:
            second: H_ss.
            mu: mu_s.
            group: s.
        """
        assert self.row is not None
        row = self.row
        outputs, weights = [second], [torch.ones_like(second)]
        for product, result in self.products:
            bent = group in product.groups or sum((x, True) in row for x in product.inputs) > 1
            for z in (result, *(product.inputs if bent else ())):
                if (z, False) in row and (z, True) in row and row[z, False].requires_grad:
                    outputs.append(row[z, False])
                    weights.append(row[z, True].detach())
        outputs, weights = outputs[not second.requires_grad :], weights[not second.requires_grad :]
        if not outputs:
            return torch.zeros_like(mu)
        self.local, self.third = True, None
        direct = torch.autograd.grad(outputs, [mu], weights, retain_graph=True, materialize_grads=True)[0]
        third = direct if self.third is None else direct + self.third
        row.clear()  # its tensors' graphs hold this object, in a circle that would keep them in memory
        return third

    def arrived(self, at: int, adjoint: bool, gradient: Tensor) -> Tensor | None:
        """Return what goes on behind a border: of the adjoint w, or of z itself."""
        if self.row is None:  # the gradient g, whose graph is the adjoint's program
            return _Border.apply(gradient, self, at, True)  # pyright: ignore[reportReturnType]
        if not self.local:
            self.row[at, adjoint] = gradient
            return gradient.detach()
        tangent = self.row.get((at, not adjoint))
        if tangent is not None:
            product = torch.sum(gradient * tangent.detach()) * (2 if adjoint else 1)
            self.third = product if self.third is None else self.third + product
        return None


class _Border(torch.autograd.Function):
    """The identity; what its gradient is, the pieces decide."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, pieces: Pieces, at: int, adjoint: bool) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.border = (pieces, at, adjoint)
        return z.clone()  # a view could not be changed in place

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        pieces, at, adjoint = ctx.border
        arrived = None if gradients[0] is None else pieces.arrived(at, adjoint, gradients[0])
        return arrived, None, None, None


class Substituted(TorchFunctionMode):
    """While active, torch functions see other tensors in the place of some, and are differentiable three times.

    Args:
        replacement: by id of a tensor, the tensor that takes its place.
        groups: by id of a tensor that has taken a parameter's place, its group.
        pieces: takes note of the program, if given.
    """

    def __init__(self, replacement: dict[int, Tensor], groups: dict[int, int], pieces: Pieces | None = None) -> None:
        super().__init__()
        self.replacement, self.groups, self.pieces = replacement, groups, pieces

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = _pytree.tree_map_only(
            Tensor, lambda x: self.replacement.get(id(x), x), (args, kwargs if kwargs is not None else {})
        )
        if func in REFUSED:
            raise NotImplementedError(
                f"Invalid loss_fn: it calls {REFUSED[func]} (expected operations with a third derivative)"
            )
        called: Any = REWRITTEN.get(func, func)
        # inside vmap and its like there are no borders: the piece is longer there
        if self.pieces is not None and func in PRODUCTS and not torch._C._are_functorch_transforms_active():
            return self.pieces.call(called, self.groups, args, kwargs)
        return called(*args, **kwargs)
