"""A carrier for `inna_core`: many tensors that look like one array and are updated in place, in multi-tensor calls.

`Vector` records what the core's expressions ask for as a sum of coefficients times lists of tensors (or of elementwise
products and quotients of two lists). Nothing is computed until `Vector.add_to` adds such a sum to a list of tensors,
one in-place multi-tensor call a term, so an update makes no temporaries but those of a square root.
"""

import math
from typing import Any

import torch

TORCH: Any = torch
"""Its multi-tensor and fused functions are there for all to use, but have no public names."""

Tensors = list[torch.Tensor]
Term = tuple[float, Tensors, Tensors | None, str]
"""Coefficient, list, second list, and how they combine: "x", "x * y" or "x / y"."""


class Vector:
    """A sum of terms, and the little arithmetic that the algorithms need of an array.

    Attributes:
        terms: of the sum, by the identity of their lists.
        constant: added to every element.
        base: the sum and the number that this one is the product of, if it is one.
        shape: of the tensors; never (), which the core would take for a scalar.
        dtype: of the tensors.
    """

    def __init__(self, terms: dict[Any, Term], dtype: torch.dtype, shape: Any, constant: float = 0.0) -> None:
        self.terms: dict[Any, Term] = terms
        self.dtype, self.shape, self.constant = dtype, shape, constant
        self.base: tuple[Vector, float] | None = None

    @classmethod
    def of(cls, x: Tensors) -> "Vector":
        return cls({id(x): (1.0, x, None, "x")}, x[0].dtype, ("a list of tensors",))

    def _like(self, terms: dict[Any, Term], constant: float = 0.0) -> "Vector":
        return Vector(terms, self.dtype, self.shape, constant)

    def _pair(self, other: "Vector", how: str) -> "Vector":
        ((a, x, second_x, _),) = self.terms.values()
        ((b, y, second_y, _),) = other.terms.values()
        if second_x is not None or second_y is not None or self.constant or other.constant:
            raise NotImplementedError("products and quotients of sums or products of lists")
        coefficient = a * b if how == "x * y" else a / b
        return self._like({(id(x), id(y), how): (coefficient, x, y, how)})

    def __mul__(self, other: Any) -> "Vector":
        if isinstance(other, Vector):
            return self._pair(other, "x * y")
        a = float(other)
        result = self._like({k: (a * c, x, y, how) for k, (c, x, y, how) in self.terms.items()}, a * self.constant)
        result.base = self, a
        return result

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Vector":
        if isinstance(other, Vector):
            return self._pair(other.stored(), "x / y")
        divisor = float(other)
        return self._like(
            {k: (c / divisor, x, y, how) for k, (c, x, y, how) in self.terms.items()}, self.constant / divisor
        )

    def __neg__(self) -> "Vector":
        return self * -1.0

    def __add__(self, other: Any) -> "Vector":
        if not isinstance(other, Vector):
            return self._like(self.terms, self.constant + float(other))
        terms = dict(self.terms)
        for k, (c, x, y, how) in other.terms.items():
            terms[k] = (c + terms[k][0] if k in terms else c, x, y, how)
        return self._like(terms, self.constant + other.constant)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Vector":
        return self + -other

    def __rsub__(self, other: Any) -> "Vector":
        return -self + other

    def stored(self) -> "Vector":
        """Return this vector with its constant added into the one list, a temporary, that it consists of."""
        if self.constant:
            ((c, x, _, _),) = self.terms.values()
            TORCH._foreach_add_(x, self.constant / c)
            self.constant = 0.0
        return self

    def add_to(self, target: Tensors, own: float = 1.0) -> None:
        """Compute ``own * target + self`` in place.

        Args:
            target: list of tensors. Where the sum has a term in this very list, it is read before it is overwritten.
            own: coefficient of what the target holds.
        """
        terms = dict(self.terms)
        own += terms.pop(id(target), (0.0,))[0]
        if self.constant:
            raise NotImplementedError("a sum with a constant")
        if own != 1.0:
            TORCH._foreach_mul_(target, own)
        for c, x, y, how in terms.values():
            if c == 0.0:
                continue  # as alpha beta = 1 makes of the gradient's
            if y is None:
                TORCH._foreach_add_(target, x, alpha=c)
            elif how == "x * y":
                TORCH._foreach_addcmul_(target, x, y, value=c)
            else:
                TORCH._foreach_addcdiv_(target, x, y, value=c)


class Namespace:
    """The functions that the algorithms need besides operators; the scalars among their arguments are 0-d tensors.

    Args:
        owned: the lists that hold the state, which may be overwritten.
        scratch: one-dimensional tensor, with room for one list, to put temporaries in: memory that is freed and taken
            again block by block would cost more than the arithmetic.
    """

    def __init__(self, owned: list[Tensors], scratch: torch.Tensor) -> None:
        self.owned, self.scratch = {id(x): x for x in owned}, scratch

    expm1 = staticmethod(torch.expm1)
    log = staticmethod(torch.log)

    def sqrt(self, x: Vector) -> Vector:
        """Return the root, on a CPU in the scratch memory.

        The sum under the root is the next value of a field of the state, perhaps times a number. It is put in the
        field's own tensors now, which spares computing it twice; its old value is of no further use then.
        """
        total, factor = (x, 1.0) if x.base is None else x.base
        field = next(self.owned[k] for k in total.terms if k in self.owned)
        total.add_to(field, own=0.0)
        total.terms = {id(field): (1.0, field, None, "x")}
        if not field[0].is_cpu:  # an accelerator is started for each call, and memory costs little there
            return Vector.of(list(TORCH._foreach_sqrt(field))) * math.sqrt(factor)
        root = []
        for part in field:
            out = self.scratch[: part.numel()].as_strided(part.shape, dense_strides(part))
            root.append(torch.sqrt(part, out=out))
            self.scratch = self.scratch[part.numel() :]
        return Vector.of(root) * math.sqrt(factor)


def dense_strides(x: torch.Tensor) -> tuple[int, ...]:
    """Return the strides of a dense tensor like this one, or of a contiguous one where it is not dense."""
    if x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(x):
        return x.stride()
    return torch.empty(x.shape, device="meta").stride()


def update_in_place(theta: Tensors, delta: Vector, fields: list[Tensors], state: list[Vector]) -> None:
    """Add an increment to the parameters and put the next state in place of the present one.

    Args:
        theta: parameters.
        delta: their increment.
        fields: present state, one list of tensors a field.
        state: next state; may refer to the present state and parameters.
    """
    for i, x in enumerate(state):
        if (
            id(theta) in x.terms
        ):  # the published decay of INNAprop: velocity and parameter each need the other's old value
            c, *_ = x.terms.pop(id(theta))
            before = [t.clone() for t in theta]
            state[i] = x + c * Vector.of(before)
    delta.add_to(theta)
    for field, x in zip(fields, state, strict=True):
        x.add_to(field, own=0.0)


def blocks(columns: list[Tensors], size: int) -> list[list[Tensors]]:
    """Cut lists of tensors into pieces of about `size` elements.

    Args:
        columns: lists of equal length; tensors at the same position have the same shape.
        size: most elements of a piece, except where a tensor that cannot be cut has more.

    Returns:
        The pieces, each one list a column; views of large tensors whose memory is alike, whole small ones otherwise.
    """
    pieces: list[list[Tensors]] = []
    open_piece: list[Tensors] = [[] for _ in columns]
    room = size
    for row in zip(*columns, strict=True):
        n = row[0].numel()
        if n > size and all(flattens(x, row[0]) for x in row):
            length = math.ceil(n / math.ceil(n / size))  # pieces of equal length, none of them a mere rest
            cut = [x.as_strided((n,), (1,)).split(length) for x in row]
            pieces += [[[x] for x in piece] for piece in zip(*cut, strict=True)]
            continue
        if n > room and open_piece[0]:
            pieces.append(open_piece)
            open_piece, room = [[] for _ in columns], size
        for column, x in zip(open_piece, row, strict=True):
            column.append(x)
        room -= n
    return [*pieces, open_piece] if open_piece[0] else pieces


def flattens(x: torch.Tensor, like: torch.Tensor) -> bool:
    """Return whether two tensors fill their memory in the same order, without gaps."""
    if x.is_contiguous():
        return like is x or like.is_contiguous()
    return x.stride() == like.stride() and torch.ops.aten.is_non_overlapping_and_dense(x)
