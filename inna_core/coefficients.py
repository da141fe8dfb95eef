"""The coefficients of a step of INNA or INNAprop, from either of two parametrizations.

In the papers' form, the dampings alpha and beta are given, and the step size gamma is the learning rate. In the other,
momentum m and lead l are given, with the learning rate eta of SGD or AdamW, and the dampings follow from the current
eta:

|          | gamma             | alpha gamma | beta    | l = 1 is       | l = 1 + m is                  |
|----------|-------------------|-------------|---------|----------------|-------------------------------|
| INNA     | sqrt(eta)         | 1 - m       | l gamma | the heavy ball | Nesterov's momentum as in SGD |
| INNAprop | sqrt(eta (1 - m)) | 1 - m       | l gamma | close to AdamW | close to NAdam                |

so that alpha beta = (1 - m) l. At a constant eta INNA with l = 1 or 1 + m makes exactly the steps of
``torch.optim.SGD`` and ``optax.sgd``; any l is quasi-hyperbolic momentum (QHM) with nu = (1 - (1 - m) l) / m and lr
eta / (1 - m). INNAprop differs from AdamW in that the first moment averages gradients that are already scaled, and has
no bias correction. A schedule of eta leaves m and l alone; a schedule of gamma with fixed alpha and beta changes both.

The steps d_k = theta_{k+1} - theta_k show the effect of the lead. At a constant eta INNA's are

    d_{k+1} = m d_k - eta g_{k+1} - (l - 1) eta (g_{k+1} - g_k)

and INNAprop's likewise with (1 - m) eta q for eta g. The difference of the gradients is about the Hessian times d_k, so
the last term is Newtonian damping. At l = 1, the heavy ball, it vanishes. At l = 1 / (1 - m), where alpha beta = 1, the
gradient does not enter the velocity, and the method is gradient descent.

alpha is infinite at eta = 0, where warm-ups start and schedules end, but its products with gamma and beta are finite,
and the equations use only these. Weight decay is lr times its rate in both parametrizations, so with m and l it is
AdamW's.

| symbol | meaning                                         | range  | name in code |
|--------|-------------------------------------------------|--------|--------------|
| eta    | learning rate of SGD and AdamW                  | >= 0   | ``lr``       |
| m      | momentum, AdamW's first beta: 1 - alpha gamma   | [0, 1) | ``momentum`` |
| l      | lead: beta / gamma                              | > 0    | ``lead``     |

QHM: J. Ma, D. Yarats. Quasi-hyperbolic momentum and Adam for deep learning. ICLR 2019.
"""

import math
from typing import Any, NamedTuple

from inna_core._validation import checked_number, namespace
from inna_core.algorithm import Namespace, Scalar

DAMPINGS, MOMENTUM = ("alpha", "beta"), ("momentum", "lead")
"""The names of the two parametrizations."""


class Coefficients(NamedTuple):
    """The coefficients of a step; floats or 0-d arrays.

    Attributes:
        gamma: the paper's step size.
        beta: Newtonian damping.
        alpha_gamma: viscous damping times the step size, 1 - m.
        alpha_beta: viscous times Newtonian damping.
    """

    gamma: Scalar
    beta: Scalar
    alpha_gamma: Scalar
    alpha_beta: Scalar

    @property
    def alpha(self) -> Scalar:
        """Viscous damping; not defined at gamma = 0."""
        return self.alpha_gamma / self.gamma


def coefficients(algorithm: Any, lr: Scalar, unit: Scalar, xp: Namespace | None = None) -> Coefficients:
    """Return the coefficients of a step.

    Args:
        algorithm: its attributes alpha and beta, or momentum and lead, are floats or 0-d arrays.
        lr: gamma where alpha and beta are given, eta where momentum is.
        unit: gamma^2 / eta: 1, or 1 - momentum.
        xp: namespace with ``sqrt``, for 0-d arrays.
    """
    momentum, lead = algorithm.momentum, algorithm.lead
    if momentum is None:
        return Coefficients(lr, algorithm.beta, algorithm.alpha * lr, algorithm.alpha * algorithm.beta)
    lead = 1 + momentum if lead is None else lead
    gamma = square_root(lr, xp) * square_root(unit, xp)
    return Coefficients(gamma, lead * gamma, 1 - momentum, (1 - momentum) * lead)


def square_root(x: Scalar, xp: Namespace | None) -> Scalar:
    """Return the square root of a number, with derivative 0 at 0.

    The true derivative is infinite there, and would make derivatives through a step NaN.
    """
    if type(x) is float:
        return math.sqrt(x)
    ns = namespace(x, xp)
    one, positive = ns.ones_like(x), x > 0
    return ns.where(positive, ns.sqrt(ns.where(positive, x, one)), ns.zeros_like(x))


def given(algorithm: Any, lr: Scalar) -> dict[str, Scalar]:
    """Return the hyperparameters that are not None, and the learning rate, by name."""
    named = {name: getattr(algorithm, name) for name in algorithm.__match_args__}
    return {"lr": lr, **{name: value for name, value in named.items() if value is not None}}


def without_rivals(algorithm: Any, entries: dict[str, Any]) -> dict[str, Any]:
    """Return new values of hyperparameters, with None for those of the other parametrization.

    Values of alpha or beta alone reset momentum and lead, and the other way round. Entries that give both are returned
    as they are.
    """
    rivals: dict[str, None] = {}
    for names, others in (DAMPINGS, MOMENTUM), (MOMENTUM, DAMPINGS):
        chosen = any(entries.get(name) is not None for name in names) and not any(name in entries for name in others)
        if chosen and {*names, *others} <= set(algorithm.__match_args__):
            rivals = dict.fromkeys(others)
    return {**entries, **rivals} if rivals else entries


def set_parameters(algorithm: Any, *, alpha: float, beta: float) -> None:
    """Validate the dampings, or momentum and lead, of a frozen dataclass, and fill in the defaults given here.

    Raises:
        ValueError: if a number is out of range, or both parametrizations are used.
        TypeError: if an argument is neither None, a real number nor a 0-d array.
    """
    momentum, lead = algorithm.momentum, algorithm.lead
    if momentum is None and lead is not None:
        raise ValueError(f"Invalid lead: {lead!r} (expected None where momentum is not given)")
    if momentum is not None:
        for name in ("alpha", "beta"):
            if (value := getattr(algorithm, name)) is not None:
                raise ValueError(f"Invalid {name}: {value!r} (expected None where momentum is given)")
        object.__setattr__(algorithm, "momentum", checked_number("momentum", momentum, below=1.0))
        object.__setattr__(algorithm, "lead", None if lead is None else checked_number("lead", lead, positive=True))
        return
    for name, default, positive in (("alpha", alpha, False), ("beta", beta, True)):
        value = getattr(algorithm, name)
        value = default if value is None else checked_number(name, value, positive=positive)
        object.__setattr__(algorithm, name, value)
