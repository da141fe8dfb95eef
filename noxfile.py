"""Sessions: ``nox -s quickstart`` shows the optimizers at work; a bare ``nox`` runs what continuous integration runs.

``nox -s fast`` is for every save, ``nox -s nightly`` for all that needs no GPU, ``nox -s gpu`` for what needs one.
"""

import os
import shutil
import sys
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nox

ROOT = Path(__file__).parent
CONSTRAINTS = os.environ.get("INNA_CONSTRAINTS", str(ROOT / "conformance_tests" / "constraints.txt"))
GROUPS = nox.project.load_toml(ROOT / "pyproject.toml")

TIERS = {"fast": "fast", "default": "not nightly and not gpu", "nightly": "not gpu", "gpu": "gpu"}
"""By tier: pytest's ``-m`` expression; docs/contributing.md says what each holds."""

nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "types", "docs", "tests", "quickstart", "wheel"]
nox.options.error_on_missing_interpreters = True


@dataclass(frozen=True)
class Environment:
    """What is installed together.

    Attributes:
        extras: of the project.
        groups: dependency groups of pyproject.toml.
        required: import names that must be there when the suite runs, or it would skip what it should test.
        packages: anything else.
    """

    extras: tuple[str, ...]
    groups: tuple[str, ...]
    required: tuple[str, ...]
    packages: tuple[str, ...] = ()

    def install(self, session: nox.Session) -> None:
        project = [f"-e.[{','.join(self.extras)}]"]
        groups = nox.project.dependency_groups(GROUPS, *self.groups)
        session.install("-c", CONSTRAINTS, *project, *groups, *self.packages)


EVERYTHING = Environment(
    extras=("numpy", "torch", "optax", "keras", "scipy", "portable"),
    groups=("tensorflow", "test", "quickstart", "training", "types", "lint", "docs"),
    required=("torch", "jax", "optax", "keras", "tensorflow", "scipy"),
    packages=("nox",),
)
INTEGRATIONS = Environment(
    extras=("numpy", "torch", "optax"),
    groups=("test", "integrations"),
    required=("lightning", "transformers", "accelerate", "flax", "equinox", "haiku", "orbax"),
)
ISOLATED = {
    "numpy": Environment(("numpy",), ("test",), ("numpy", "array_api_strict")),
    "scipy": Environment(("scipy",), ("test",), ("numpy", "scipy")),
    "torch": Environment(("torch",), ("test",), ("torch",)),
    "optax": Environment(("optax",), ("test",), ("jax", "optax")),
    "keras-tensorflow": Environment(("keras",), ("test", "tensorflow"), ("keras", "tensorflow")),
    "keras-jax": Environment(("keras", "optax"), ("test",), ("keras", "jax")),
    "keras-torch": Environment(("keras", "torch"), ("test",), ("keras", "torch")),
}


@nox.session(reuse_venv=True, default=False)
def everything(session: nox.Session) -> None:
    """Make the environment that most sessions share, or bring it up to date."""
    EVERYTHING.install(session)
    programs.append(Path(session.bin))


programs: list[Path] = []
in_everything = partial(nox.session, python=False, requires=["everything"])


def run(session: nox.Session, *command: str) -> None:
    """Run a program of the environment of `everything`."""
    (folder,) = programs
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    session.run(str(folder / command[0]), *command[1:], env={"PATH": path}, external=True)


def suite(tier: str, environment: Environment) -> list[str]:
    """Return the command that runs a tier in an environment.

    A host's tests stay on one worker, since to start a backend and to compile costs more than most tests.
    """
    required = [f"--require={name}" for name in environment.required]
    return ["python", "-m", "pytest", "-m", TIERS[tier], "-n", "auto", "--dist", "loadgroup", *required]


@in_everything(default=False)
def fast(session: nox.Session) -> None:
    """Run the tests for every save: two minutes, once everything is installed."""
    run(session, *suite("fast", EVERYTHING), *session.posargs)


@in_everything()
def tests(session: nox.Session) -> None:
    """Run the default tier of the suite, on all hosts."""
    run(session, *suite("default", EVERYTHING), *session.posargs)


@in_everything(default=False)
def nightly(session: nox.Session) -> None:
    """Run everything that needs no GPU: the whole suite, hosts apart, other libraries, mutants, stored trainings."""
    run(session, *suite("nightly", EVERYTHING), *session.posargs)
    for name in (*(f"isolated({host})" for host in ISOLATED), "integrations", "mutants", "training"):
        session.notify(name, posargs=())


@nox.session(python=False, default=False)
def gpu(session: nox.Session) -> None:
    """Run all CUDA and CuPy rows in the Python that runs nox, with a summary for docs/conformance.md; then time steps.

    Rows go to whichever worker is free: they start no backend, and one host has most of them.
    """
    arguments = ("-m", TIERS["gpu"], "-n", "4", "--dist", "load", "--summary", "-q")
    session.run(sys.executable, "-m", "pytest", *arguments, *session.posargs, external=True)
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")])}
    session.run(sys.executable, "-m", "benchmarks.torch_step", "--device", "cuda", env=env, external=True)


@nox.session(default=False)
@nox.parametrize("host", list(ISOLATED), ids=list(ISOLATED))
def isolated(session: nox.Session, host: str) -> None:
    """Run the fast tier where no other host is installed."""
    ISOLATED[host].install(session)
    session.run(*suite("fast", ISOLATED[host]), *session.posargs)


@nox.session(default=False)
def integrations(session: nox.Session) -> None:
    """Train small models through Lightning, Trainer, Accelerate and the libraries around JAX."""
    INTEGRATIONS.install(session)
    folder = "conformance_tests"
    files = (f"{folder}/torch_host/test_integrations.py", f"{folder}/optax_host/test_frameworks.py")
    session.run(*suite("nightly", INTEGRATIONS), *files, *session.posargs)


@in_everything(default=False)
def mutants(session: nox.Session) -> None:
    """Break one thing at a time and expect the default tier to notice; takes a while."""
    run(session, "python", "-m", "conformance_tests.mutants", *session.posargs)


@in_everything()
def lint(session: nox.Session) -> None:
    """Check style and imports."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")


@in_everything()
def types(session: nox.Session) -> None:
    """Check types against the hosts' own."""
    run(session, "pyright", "--threads")


@in_everything()
def quickstart(session: nox.Session) -> None:
    """Train one small network with INNA on every host; write a table and a picture."""
    run(session, "python", "-m", "benchmarks.quickstart", *session.posargs)


@in_everything()
def docs(session: nox.Session) -> None:
    """Build the site into build/docs; warnings, broken links among them, are errors. It mocks the frameworks."""
    run(session, "sphinx-build", "-W", "--keep-going", "-q", "-b", "html", *session.posargs, "docs", "build/docs")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, see that nothing is missing from it, and run it with NumPy alone, away from the checkout."""
    session.install("-c", CONSTRAINTS, "build")
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist), ".", silent=True)
    (built,) = dist.glob("*.whl")
    packages = [ROOT / "inna_core", *(ROOT / "adapters").glob("inna_*")]
    modules = {path.relative_to(package.parent).as_posix() for package in packages for path in package.rglob("*.py")}
    if missing := modules - set(zipfile.ZipFile(built).namelist()):
        session.error(f"the wheel lacks {', '.join(sorted(missing))}")
    groups = nox.project.dependency_groups(GROUPS, "test")
    session.install("-c", CONSTRAINTS, f"{built}[numpy]", *groups, "--force-reinstall")
    # the tests travel alone, so that nothing but the wheel can answer to `import inna_core`
    away = Path(session.create_tmp()) / "away"
    shutil.rmtree(away, ignore_errors=True)
    shutil.copytree(ROOT / "conformance_tests", away / "conformance_tests")
    shutil.copy(ROOT / "pyproject.toml", away)
    session.chdir(away)
    command = ("python", "-m", "pytest", "-o", "pythonpath=.", "-m", TIERS["fast"], "-n", "auto", "--require=numpy")
    session.run(*command, "conformance_tests/core", "conformance_tests/matrix/test_lockstep.py", *session.posargs)


@in_everything(default=False)
def training(session: nox.Session) -> None:
    """Tune and train on real tasks with equal budgets, two small ones or what is asked for after `--`.

    Then train two stored rows of digits again, and see that they are repeated within their spread.
    """
    optimizers = "inna,innaprop,sgd,momentum,adagrad,adam,adamw,newton"
    small = ["--task", "digits,burgers", "--regime", "cosine", "--optimizer", optimizers]
    small += ["--budget", "4", "--out", "training-results"]
    run(session, "python", "-m", "benchmarks", "training", *(session.posargs or small))
    stored = ["--task", "digits", "--regime", "cosine", "--optimizer", "inna,adamw"]
    run(session, "python", "-m", "benchmarks", "training-repeat", *stored)
