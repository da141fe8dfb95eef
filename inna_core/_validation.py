"""Validation shared by the algorithms: every error names the argument, its value and the allowed range."""

import math
import re
from collections.abc import Sequence
from numbers import Real
from typing import Any

from array_api_compat import array_namespace


def checked_number(name: str, value: Any, *, positive: bool = False, below: float = math.inf) -> Any:
    """Validate a hyperparameter, and convert Python and NumPy numbers to plain floats.

    Args:
        name: the argument's name, for the error message.
        value: a real number, or a 0-d array (traced or on a device), whose value is not read.
        positive: whether zero is excluded.
        below: exclusive upper bound.

    Returns:
        ``float(value)`` for a number (NumPy's float64 subclasses float but promotes float32 arrays, so it must not pass
        through), the array itself otherwise.

    Raises:
        TypeError: if the value is neither a real number nor a 0-d array.
        ValueError: if a number is outside the range.
    """
    lowest = "> 0" if positive else ">= 0"
    expected = f"a finite number {lowest}" if below == math.inf else f"a number {lowest} and < {below:g}"
    if type(value) is float:  # first, since torch.compile's symbolic floats have no attributes
        number = value
    elif type(value).__module__ == "numpy" and is_real_floating(value) and value.shape == ():
        number = float(value)  # reading a NumPy array does not wait for a device
    elif isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an integer larger than every float
            number = math.inf
    elif getattr(value, "shape", None) == () and hasattr(value, "dtype") and is_real_floating(value):
        return value
    else:
        raise TypeError(
            f"Invalid {name}: {value!r} (expected {expected}, or a 0-d array of a real floating-point dtype)"
        )
    if not (number > 0.0 if positive else number >= 0.0) or not number < below:
        raise ValueError(f"Invalid {name}: {value!r} (expected {expected})")
    return number


def checked_choice(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """Return an option if it is one of the allowed objects, compared by identity (1 is not True).

    Raises:
        TypeError: if it is not.
    """
    if not any(value is one for one in allowed):
        raise TypeError(f"Invalid {name}: {value!r} (expected one of {', '.join(map(str, allowed))})")
    return value


def checked_count(name: str, value: Any, least: int) -> int:
    """Return a count if it is an int and large enough.

    Raises:
        TypeError: if it is not an int.
        ValueError: if it is less than `least`.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"Invalid {name}: {value!r} (expected an int >= {least})")
    if value < least:
        raise ValueError(f"Invalid {name}: {value!r} (expected an int >= {least})")
    return value


def is_real_floating(array: Any) -> bool:
    # By name, because the standard's `isdtype` does not cover bfloat16, and TensorFlow has no array namespace. Floats
    # of eight bits and less are storage formats, not for arithmetic.
    return re.search(r"float(16|32|64|80|96|128)\b", str(getattr(array, "dtype", ""))) is not None


def is_complex(array: Any) -> bool:
    return re.search(r"complex(64|128|256)\b", str(getattr(array, "dtype", ""))) is not None


def is_narrow(array: Any) -> bool:
    """Return whether the dtype is float16 or bfloat16, which have too few digits for sums over many steps."""
    return str(array.dtype).rstrip("'>").endswith("float16")


def check_algorithm(algorithm: Any) -> None:
    """Raise TypeError for anything but an algorithm object, such as the class `INNA` in place of `INNA()`."""
    if isinstance(algorithm, type) or not all(hasattr(algorithm, name) for name in ("init", "update", "state_type")):
        raise TypeError(f"Invalid algorithm: {algorithm!r} (expected an algorithm object of inna_core, such as INNA())")


def check_parameter(theta: Any) -> None:
    """Refuse a parameter that is not a floating-point array, real or complex."""
    if not hasattr(theta, "dtype") or not hasattr(theta, "shape"):
        raise TypeError(f"Invalid theta: {theta!r} (expected an array of a real or complex floating-point dtype)")
    if not is_real_floating(theta) and not is_complex(theta):
        raise TypeError(f"Invalid theta: dtype {theta.dtype} (expected a real or complex floating-point dtype)")


def check_like(name: str, array: Any, theta: Any) -> None:
    """Refuse an array whose shape or dtype differs from the parameter's."""
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        raise TypeError(f"Invalid {name}: {array!r} (expected an array like theta)")
    if array.shape != theta.shape:
        raise ValueError(f"Invalid {name}: shape {tuple(array.shape)} (expected theta's, {tuple(theta.shape)})")
    if array.dtype != theta.dtype:
        raise TypeError(f"Invalid {name}: dtype {array.dtype} (expected theta's, {theta.dtype})")


def check_update(xp: Any, state_type: type, grad: Any, state: Any, theta: Any, hyperparameters: dict[str, Any]) -> None:
    """Raise TypeError or ValueError for arguments of an update that do not fit together.

    Args:
        xp: namespace that the caller gave, or None to refuse a mixture of frameworks.
        state_type: the algorithm's state NamedTuple. Its fields named ``step`` may be of any dtype and shape.
        grad: gradient.
        state: state of the previous step.
        theta: parameter.
        hyperparameters: by name, already passed through `checked_number`.
    """
    check_parameter(theta)
    if xp is None and hasattr(grad, "dtype"):
        array_namespace(theta, grad)
    check_like("grad", grad, theta)
    if not isinstance(state, state_type):
        raise TypeError(f"Invalid state: {type(state).__name__} (expected {state_type.__name__}, as `init` returns it)")
    fields: Sequence[str] = state_type._fields
    for field in fields:
        if field != "step":
            check_like(f"state.{field}", getattr(state, field), theta)
    check_scalars(hyperparameters, theta)


def check_scalars(scalars: dict[str, Any], theta: Any) -> None:
    """Refuse 0-d arrays whose dtype is not the parameter's, unless their product with it has the parameter's dtype."""
    for name, value in scalars.items():
        if type(value) is not float and value.dtype != theta.dtype and not keeps_dtype(value, theta):
            own = f"the real dtype of theta's {theta.dtype}" if is_complex(theta) else f"theta's {theta.dtype}"
            raise TypeError(f"Invalid {name}: a 0-d array of dtype {value.dtype} (expected a Python float or {own})")


def keeps_dtype(value: Any, theta: Any) -> bool:
    """Return whether theta times a real 0-d array has theta's dtype.

    A real scalar keeps a complex dtype. In torch a 0-d float64 tensor also keeps a narrower one.
    """
    if "float64" not in str(value.dtype) and not is_complex(theta):
        return False
    try:
        return ((theta[:0, ...] if theta.shape else theta) * value).dtype == theta.dtype
    except (TypeError, RuntimeError):  # an array of another framework or on another device
        return False


def namespace(theta: Any, xp: Any | None) -> Any:
    """Return the namespace that the caller gave, or else the array's own."""
    return array_namespace(theta) if xp is None else xp


def squared_modulus(x: Any, ns: Any) -> Any:
    """Return |x|^2, real."""
    return ns.real(ns.conj(x) * x) if is_complex(x) else x * x


def as_array(x: Any) -> Any:
    # NumPy turns the result of 0-d arithmetic into a scalar, which unlike an array has no item assignment; a full index
    # makes it an array again.
    return x[...] if x.shape == () and not hasattr(x, "__setitem__") else x
