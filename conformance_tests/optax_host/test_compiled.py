"""What XLA makes of a step: no copies of anything as large as a parameter, no temporaries."""

import re
from typing import Any

import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp  # noqa: E402

import inna_core  # noqa: E402
from conformance_tests.matrix.table import ALGORITHMS  # noqa: E402
from conformance_tests.optax_host.scenarios import TRANSFORMS, make, one_step  # noqa: E402
from inna_core.schedules import PowerDecay  # noqa: E402

if jax.default_backend() != "cpu" or jax.device_count() > 1:
    pytest.skip("this is about what XLA makes for one CPU", allow_module_level=True)

SHAPES = ((256, 64), (64, 192), (64, 256), (256,))

COPY = re.compile(r"= \w+\[([\d,]+)\]\S* copy\(")

CONSTANT = {"learning_rate": 0.01}
RATES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "constant": (CONSTANT, {}),
    "constant, no decay": ({**CONSTANT, "weight_decay": 0.0}, {}),
    "PowerDecay": ({"learning_rate": PowerDecay(0.01, 0.5)}, {}),
    "any schedule": ({"learning_rate": optax.cosine_decay_schedule(0.01, 100)}, {}),
}
"""By name: arguments of the transformation, compiler options."""


def copies(hlo: str) -> list[str]:
    """Return the shapes of the arrays that a compiled program copies; scalars do not count."""
    return COPY.findall(hlo)


def test_copies_are_found_in_a_program() -> None:
    hlo = "%copy.1 = f32[64,32]{1,0} copy(%s), %c = s32[] copy(%k)\n %add = f32[64,32]{1,0} add(%copy.1, %g)"
    assert copies(hlo) == ["64,32"]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_donated_step_copies_nothing(name: str, rate: str) -> None:
    arguments, options = RATES[rate]
    transform = make(name, **arguments)
    params = [jnp.ones(shape, jnp.float32) for shape in SHAPES]
    step = jax.jit(lambda *args: one_step(transform, *args), donate_argnums=(0, 1), compiler_options=options)
    compiled = step.lower(params, transform.init(params), params).compile()
    assert copies(compiled.as_text()) == []
    # nor does it compute any array that it does not return
    assert compiled.memory_analysis().temp_size_in_bytes < min(p.nbytes for p in params)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_an_eager_step_evaluates_an_algorithm_once_a_leaf(algorithm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a compiler gains from the order of evaluation that saves copies."""
    own, calls = getattr(inna_core, algorithm.name), []
    update = own.update
    monkeypatch.setattr(own, "update", lambda *args, **kwargs: calls.append(args) or update(*args, **kwargs))
    transform = make(algorithm.optax)
    params = [jnp.ones(shape, jnp.float32) for shape in SHAPES]
    one_step(transform, params, transform.init(params), params)
    assert len(calls) == len(SHAPES)
