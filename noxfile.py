"""Sessions: ``nox -s quickstart`` shows the optimizers at work; a bare ``nox`` runs every check this machine can.

Each host gets an environment of its own, in which it must be present; ``conformance`` puts them all together.
"""

import os
import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).parent
CONSTRAINTS = os.environ.get("INNA_CONSTRAINTS", str(ROOT / "conformance_tests" / "constraints.txt"))
GROUPS = nox.project.load_toml(ROOT / "pyproject.toml")

# extras and dependency groups that make a host, the import names that must then be there, and which tests concern it
HOSTS: dict[str, tuple[list[str], list[str], list[str], str]] = {
    "numpy": (["numpy"], [], ["numpy", "array_api_strict"], ""),
    "torch": (["torch"], [], ["torch"], "torch and not keras and not compiled"),
    "optax": (["optax"], [], ["jax", "optax"], "optax or jax"),
    "keras-tensorflow": (["keras"], ["tensorflow"], ["keras", "tensorflow"], "tensorflow"),
    "keras-jax": (["keras", "optax"], [], ["keras", "jax"], "keras and jax"),
    "keras-torch": (["keras", "torch"], [], ["keras", "torch"], "keras and torch"),
}
BASICS = "contracts or core or step_sizes or imports or docstrings or readme or (lockstep and default)"
ALL = (["numpy", "torch", "optax", "keras"], ["tensorflow"], ["torch", "jax", "optax", "keras", "tensorflow"])
if shutil.which("nvidia-smi"):
    HOSTS["cupy"] = (["cupy"], [], ["cupy"], "cupy")

nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "types", "wheel", "quickstart", "tests", "conformance"]
nox.options.error_on_missing_interpreters = True


def install(session: nox.Session, extras: list[str], groups: list[str], *more: str) -> None:
    """Install the checkout with extras, and dependency groups of pyproject.toml."""
    project = ["-e", f".[{','.join(extras)}]"] if extras else []
    session.install("-c", CONSTRAINTS, *project, *nox.project.dependency_groups(GROUPS, *groups), *more)


def run_suite(session: nox.Session, required: list[str], *select: str) -> None:
    demands = [f"--require={name}" for name in required]
    session.run("python", "-m", "pytest", "-n", "auto", *demands, *select, *session.posargs)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Train one small network with INNA on every host; write a table and a picture."""
    extras, groups, _ = ALL
    install(session, extras, [*groups, "quickstart"])
    session.run("python", "-m", "benchmarks.quickstart", *session.posargs)


@nox.session
@nox.parametrize("host", list(HOSTS), ids=list(HOSTS))
def tests(session: nox.Session, host: str) -> None:
    """Show that a host works in an environment of its own; `conformance` runs everything, with all of them together."""
    extras, groups, required, select = HOSTS[host]
    install(session, extras, [*groups, "test"])
    run_suite(session, required, "-k", f"({select}) and ({BASICS})" if select else BASICS)


@nox.session
def conformance(session: nox.Session) -> None:
    """Run the suite with all hosts together."""
    extras, groups, required = ALL
    install(session, extras, [*groups, "test", "quickstart", "training"])
    run_suite(session, required)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and imports."""
    install(session, [], ["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types against the hosts' own."""
    extras, groups, _ = ALL
    install(session, extras, [*groups, "test", "quickstart", "training", "types"], "nox")
    session.run("pyright")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it, and run the suite against it, away from the checkout."""
    session.install("-c", CONSTRAINTS, "build")
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist), ".", silent=True)
    (built,) = dist.glob("*.whl")
    session.install(
        "-c", CONSTRAINTS, f"{built}[numpy,torch]", *nox.project.dependency_groups(GROUPS, "test"), "--force-reinstall"
    )
    # the tests travel alone, so that nothing but the wheel can answer to `import inna_core`
    away = Path(session.create_tmp()) / "away"
    shutil.rmtree(away, ignore_errors=True)
    shutil.copytree(ROOT / "conformance_tests", away / "conformance_tests")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, away)
    session.chdir(away)
    select = ("-k", f"(numpy or torch) and ({BASICS})")
    command = ("python", "-m", "pytest", "-o", "pythonpath=.", "-n", "auto", "--require=torch")
    session.run(*command, *select, *session.posargs)


@nox.session(default=False)
def training(session: nox.Session) -> None:
    """Tune and train on real tasks with equal budgets, two small ones or what is asked for after `--`.

    Then train two stored rows of digits again, and see that they are repeated within their spread.
    """
    install(session, ["torch"], ["training"])
    optimizers = "inna,innaprop,sgd,momentum,adagrad,adam,adamw,newton"
    small = ["--task", "digits,burgers", "--regime", "cosine", "--optimizer", optimizers]
    small += ["--budget", "4", "--out", "training-results"]
    session.run("python", "-m", "benchmarks", "training", *(session.posargs or small))
    stored = ["--task", "digits", "--regime", "cosine", "--optimizer", "inna,adamw"]
    session.run("python", "-m", "benchmarks", "training-repeat", *stored)


@nox.session(default=False)
def integrations(session: nox.Session) -> None:
    """Train small models through Lightning, Trainer, Accelerate and the libraries around JAX."""
    install(session, ["numpy", "torch", "optax"], ["test", "integrations"])
    packages = ("lightning", "transformers", "accelerate", "flax", "equinox", "haiku", "orbax")
    run_suite(session, list(packages), "-k", "integrations or frameworks")


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Break one thing at a time and expect the suite to notice; takes a while."""
    extras, groups, _ = ALL
    install(session, extras, [*groups, "test", "quickstart"])
    session.run("python", "-m", "conformance_tests.mutants", *session.posargs)
