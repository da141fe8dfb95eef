"""Kahan-compensated addition, for low-precision parameters, in which small updates would be lost.

    y           = delta_k + c_k
    u_k         = round(y)                                      what is added to theta
    theta_{k+1} = round(theta_k + u_k)
    c_{k+1}     = round(y - (theta_{k+1} - theta_k))            to be added later           c_0 = 0

`round` is to the precision in which theta and c are stored; everything else happens in a wider one, where
theta_{k+1} - theta_k is exact. Each host rounds in the same places. Hosts differ only in the last digit of delta, which
a compiler may change.

Reference: W. Kahan. Further remarks on reducing truncation errors. Communications of the ACM 8(1), 1965.
"""

from collections.abc import Callable

from inna_core.algorithm import Array


def compensated_increment(
    delta: Array, compensation: Array, theta: Array, rounded: Callable[[Array], Array]
) -> tuple[Array, Array]:
    """Return what to add to the stored parameter, and the next compensation.

    Args:
        delta: increment that the algorithm asks for, in the wide dtype.
        compensation: the part of earlier increments that is still to be added, in the wide dtype.
        theta: stored parameter, in the wide dtype.
        rounded: rounds to the stored precision and returns the wide dtype. Compilers may drop a cast to a narrow dtype
            and back; this function must not be dropped.

    Returns:
        u and the next compensation, both exactly representable in the stored dtype.

    Example:
        >>> import numpy as np
        >>> half = lambda x: x.astype(np.float16).astype(np.float32)
        >>> theta, c = np.ones(1, np.float32), np.zeros(1, np.float32)
        >>> for _ in range(10):  # float16 alone would stay at 1: its spacing there is 0.00098
        ...     u, c = compensated_increment(np.float32(0.0002), c, theta, half)
        ...     theta = half(theta + u)
        >>> float(theta[0])
        1.001953125
    """
    y = delta + compensation
    u = rounded(y)
    return u, rounded(y - (rounded(theta + u) - theta))
