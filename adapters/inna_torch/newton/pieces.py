"""Third derivatives of a loss piece by piece, and the mode that substitutes moved parameters in a loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from inna_torch.newton.operations import PRODUCTS, REFUSED, REWRITTEN

Tensor = torch.Tensor


class Product(NamedTuple):
    """A call of one of the `PRODUCTS`.

    Attributes:
        inputs: indices of its inputs in `Pieces`, without the moved parameters.
        groups: of the moved parameters among its inputs.
    """

    inputs: tuple[int, ...]
    groups: frozenset[int]


class Pieces:
    """The loss in pieces, the products and the operations between them, each with third derivatives of its own.

    Let z be the tensors where pieces meet, w = d phi / dz their adjoints, and dz, dw their derivatives by mu_s. The
    pieces f: z -> z' make phi the Lagrangian sum of <w', f(z) - z'>, which is stationary in all z and w: an error of
    second order in these has an effect of fourth order, so that the third derivative follows from first ones,

        T_s = sum over pieces d^3/de^3 <w' + e dw', f(z + e dz)> = sum <w', f3(dz, dz, dz)> + 3 <dw', f2(dz, dz)>

    with the derivatives f1, f2, f3 of f. The row H_s has found dz and dw: the derivative of g_s = d phi / d mu_s meets
    each w and each z on its way back, and what arrives there is

        d g_s / dw = dz         d g_s / dz = dw = f1(z)^T dw' + <w', f2(z)(dz, .)>

    The derivative of <dw, dz> in z along dz, with dz and dw' held, is <w', f3(dz, dz, dz)> + <dw', f2(dz, dz)>; that in
    w' along dw' is <dw', f2(dz, dz)>. The former plus twice the latter is T_s. Both are found in one backward pass that
    never leaves a piece, and a product of which only one input depends on mu_s is left out, since its f2 = 0. So T_s
    needs none of the expensive products, while the derivative of H_ss would run through the network as the row did.
    """

    def __init__(self) -> None:
        self.count = 0
        self.products: list[tuple[Product, int]] = []
        self.row: dict[tuple[int, bool], Tensor] | None = None
        self.local = False
        self.third: Tensor | None = None

    def call(self, function: Callable[..., Any], groups: dict[int, int], args: Any, kwargs: Any) -> Any:
        """Call one of the `PRODUCTS` and record it.

        Args:
            function: the product.
            groups: by id of a moved parameter, its group.
            args, kwargs: arguments of the product.
        """
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
        """Start a row of H: keep tangents from now on, and pass gradients on as constants."""
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
            has_curvature = group in product.groups or sum((x, True) in row for x in product.inputs) > 1
            for z in (result, *(product.inputs if has_curvature else ())):
                if (z, False) in row and (z, True) in row and row[z, False].requires_grad:
                    outputs.append(row[z, False])
                    weights.append(row[z, True].detach())
        outputs, weights = outputs[not second.requires_grad :], weights[not second.requires_grad :]
        if not outputs:
            return torch.zeros_like(mu)
        self.local, self.third = True, None
        direct = torch.autograd.grad(outputs, [mu], weights, retain_graph=True, materialize_grads=True)[0]
        third = direct if self.third is None else direct + self.third
        row.clear()  # its tensors' graphs refer to this object: a reference cycle would keep them in memory
        return third

    def on_gradient(self, at: int, adjoint: bool, gradient: Tensor) -> Tensor | None:
        """Return the gradient to pass on at a border where the gradient by z, or by its adjoint w, arrives."""
        if self.row is None:  # the gradient g: its graph computes the adjoints
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
    """The identity, with a gradient that `Pieces.on_gradient` chooses."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, pieces: Pieces, at: int, adjoint: bool) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.border = (pieces, at, adjoint)
        return z.clone()  # not a view: the model could not modify it in place

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        pieces, at, adjoint = ctx.border
        passed_on = None if gradients[0] is None else pieces.on_gradient(at, adjoint, gradients[0])
        return passed_on, None, None, None


class Substituted(TorchFunctionMode):
    """While active, torch functions of this thread receive moved parameters and are differentiable three times.

    Args:
        replacement: by id of a parameter, the moved parameter that replaces it.
        groups: by id of a moved parameter, its group.
        pieces: records the products, if given.
    """

    def __init__(self, replacement: dict[int, Tensor], groups: dict[int, int], pieces: Pieces | None) -> None:
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
        # functorch transforms (vmap) do not support borders; without them the piece is longer
        if self.pieces is not None and func in PRODUCTS and not torch._C._are_functorch_transforms_active():
            return self.pieces.call(called, self.groups, args, kwargs)
        return called(*args, **kwargs)
