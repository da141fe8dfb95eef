"""The hosts, one row each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

_TRAINING = "benchmarks.quickstart.hosts"
_X64 = {"JAX_ENABLE_X64": "1"}


@dataclass(frozen=True)
class Host:
    """A way to train.

    Attributes:
        name: what the table, the picture and ``--hosts`` call it.
        module: import name of the module whose ``train`` runs it.
        option: the first argument of ``train``.
        packages: import names that must be installed.
        install: what pip installs to have them, from the checkout.
        environment: variables of the host's process, since backends and precisions are fixed at import.
    """

    name: str
    module: str
    option: str = ""
    packages: tuple[str, ...] = ()
    install: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> str:
        """Return a line that says what is missing and how to install it; empty if nothing is."""
        absent = [package for package in self.packages if find_spec(package) is None]
        if not absent:
            return ""
        return f"{self.name}: not installed (no {', '.join(absent)}) — python -m pip install {self.install}"


def _keras(backend: str, package: str, environment: Mapping[str, str]) -> Host:
    return Host(
        name=f"keras-{backend}",
        module=f"{_TRAINING}.keras",
        packages=("keras", package, "inna_keras"),
        install=f'-e ".[keras]" {package}',
        environment={"KERAS_BACKEND": backend, **environment},
    )


REFERENCE = Host("numpy", f"{_TRAINING}.arrays", "numpy", ("numpy", "inna_core"), '-e ".[numpy]"')

HOSTS = (
    REFERENCE,
    Host("torch", f"{_TRAINING}.torch", "cpu", ("torch", "inna_torch"), '-e ".[torch]"'),
    Host("optax", f"{_TRAINING}.optax", "", ("jax", "optax", "inna_optax"), '-e ".[optax]"', _X64),
    _keras("tensorflow", "tensorflow", {"TF_CPP_MIN_LOG_LEVEL": "3"}),
    _keras("jax", "jax", _X64),
    _keras("torch", "torch", {}),
    Host("torch-cuda", f"{_TRAINING}.torch", "cuda", ("torch", "inna_torch"), '-e ".[torch]"'),
    Host("cupy", f"{_TRAINING}.arrays", "cupy", ("cupy", "inna_core"), '-e ".[cupy]"'),
)
