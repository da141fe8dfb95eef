"""Each host works where no other is installed: README's example, a step, saving and loading, with the others hidden.

What is hidden is as good as absent to whoever looks for it. `nox -s isolated` has environments in which it is absent.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from conformance_tests.backend_process import open_here
from conformance_tests.matrix.cases import random_arrays
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.rows import FULLEST
from conformance_tests.matrix.table import HOSTS
from conformance_tests.packages import skip_without
from conformance_tests.repository import readme
from conformance_tests.tiers import nightly_but

FRAMEWORKS = {"array_api_strict", "cupy", "jax", "keras", "optax", "tensorflow", "torch"}

ALONE = {
    "numpy": set(),
    "scipy": set(),
    "strict": {"array_api_strict"},
    "torch": {"torch"},
    "optax": {"optax", "jax"},
    "keras-tensorflow": {"keras", "tensorflow"},
    "keras-jax": {"keras", "jax"},
    "keras-torch": {"keras", "torch"},
}
"""By host: the frameworks that it may find."""


def row_of(name: str) -> Host:
    """Return the row of the matrix that makes the step; SciPy's arrays are NumPy's."""
    return next(host for host in HOSTS if host.name == ("numpy" if name == "scipy" else name))


class Hidden:
    """Takes the place of all finders of modules, and finds no hidden one."""

    def __init__(self, names: set[str]) -> None:
        self.names, self.finders = names, list(sys.meta_path)

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name.split(".")[0] in self.names:
            return None
        specs = (finder.find_spec(name, path, target) for finder in self.finders)  # type: ignore[arg-type]
        return next((spec for spec in specs if spec is not None), None)


def run_alone(name: str, path: str) -> None:
    """Run README's example, make a step, save, load into another run and compare, in this process."""
    sys.meta_path[:] = [Hidden(FRAMEWORKS - ALONE[name])]  # type: ignore[list-item]
    if name in readme.EXAMPLES:
        readme.run(readme.EXAMPLES[name])
    host = row_of(name)
    setup = FULLEST.default.setup(host.narrow)
    run = open_here(host, setup, random_arrays(0, dtype=host.narrow))
    run.step(random_arrays(1, dtype=host.narrow))
    run.save(path)
    other = open_here(host, setup, random_arrays(2, dtype=host.narrow))
    other.load(path)
    for got, want in zip(other.read().params, run.read().params, strict=True):
        np.testing.assert_array_equal(got, want)
    loaded = {module.split(".")[0] for module in sys.modules} & FRAMEWORKS
    assert loaded <= ALONE[name], loaded
    print("alone", *sorted(loaded))


@pytest.mark.parametrize("name", nightly_but(ALONE.keys() - {"keras-tensorflow", "keras-jax"}, ALONE))
def test_a_host_works_without_the_others(name: str, tmp_path: object) -> None:
    skip_without(*ALONE[name], *({"scipy"} & {name}))
    host = row_of(name)
    code = f"from {__name__} import run_alone; run_alone({name!r}, {str(tmp_path) + '/saved'!r})"
    paths = os.pathsep.join(path for path in sys.path if path)
    # JAX as users have it: without the float64 that this suite switches on
    env = {**os.environ, "JAX_ENABLE_X64": "0", **host.env, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["alone", *sorted(ALONE[name])]


def test_every_example_is_run() -> None:
    modules = set(readme.EXAMPLES.values())
    assert len(readme.BLOCKS) == sum(len(readme.examples(module)) for module in modules)
    assert all(map(readme.examples, modules))
    assert set(readme.EXAMPLES) <= set(ALONE)
