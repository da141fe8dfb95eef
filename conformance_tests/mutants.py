"""Breaks one thing at a time in a scratch copy and expects the suite to notice.

    python -m conformance_tests.mutants [NAME ...]

A mutant that survives means that the suite would not see that mistake; the exit status is then 1. Only the default tier
is asked, which is what continuous integration runs: pyproject.toml selects it wherever no other is asked for.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).parent.parent
PARTS = ("inna_core", "adapters", "conformance_tests", "benchmarks", "pyproject.toml", "README.md")


class Rows(NamedTuple):
    """Tests that should notice a mistake.

    Attributes:
        names: pytest's ``-k`` expression; all tests if empty.
        where: files and folders of conformance_tests.
    """

    names: str
    where: tuple[str, ...]


def rows(names: str, *where: str) -> Rows:
    return Rows(names, where)


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Attributes:
        name: what is wrong.
        file: where.
        old: text that occurs there exactly once.
        new: what takes its place.
        rows: the tests that should fail; a small selection keeps a run short.
    """

    name: str
    file: str
    old: str
    new: str
    rows: Rows


INNA, PROP, BY = "inna_core/inna.py", "inna_core/innaprop.py", "inna_core/coefficients.py"
TORCH, OPTAX, KERAS = "adapters/inna_torch", "adapters/inna_optax/_transform.py", "adapters/inna_keras/_base.py"
LOCKSTEP, CONTRACTS, LOW = "matrix/test_lockstep.py", "matrix/test_contracts.py", "matrix/test_low_precision.py"
SCIPY, MINIMIZATION = "adapters/inna_scipy", "scipy_host/test_minimization.py"
KERAS_HOST, COMPOSITIONS = "keras_host/test_behaviours.py", "optax_host/test_compositions.py"
INJECTIONS = "optax_host/test_hyperparameters.py"
DYNAMICS, MONITOR, PORTABLE = "inna_core/dynamics.py", "inna_core/monitor.py", "inna_core/portable"
CORE, NUMPY = rows("", "core"), rows("numpy and not readonly", "matrix")
FILES, FITTING = rows("not keras", "portable/test_files.py"), rows("refused or mapping", "portable/test_fitting.py")
SAVES = rows("not killed", "portable/test_interrupted_saves.py")

MUTANTS = (
    Mutant("sign of beta g", INNA, "(v - beta * g)", "(v + beta * g)", NUMPY),
    Mutant("beta left out", INNA, "(v - beta * g)", "(v - g)", NUMPY),
    Mutant("friction left out", INNA, "(1 - alpha_gamma) * v", "v", NUMPY),
    Mutant("friction's sign", INNA, "(1 - alpha_gamma) * v", "(1 + alpha_gamma) * v", NUMPY),
    Mutant("alpha beta left out", INNA, "gamma * (1 - alpha_beta) * g", "gamma * g", NUMPY),
    Mutant("theta from the new velocity", INNA, "delta = gamma * (v - beta * g)", "delta = gamma * (v * (1 - alpha_gamma) - beta * g)", NUMPY),
    Mutant("initial velocity of psi_0 = theta_0", INNA, ".zeros_like(theta))", ".zeros_like(theta) - self.alpha * theta)", NUMPY),
    Mutant("negative lr accepted", INNA, 'checked_number("lr", lr)', "lr", CORE),
    Mutant("beta = 0 accepted", BY, '("beta", beta, True)', '("beta", beta, False)', NUMPY),
    Mutant("gamma is lr with momentum", BY, "square_root(lr, xp) *", "lr *", NUMPY),
    Mutant("INNAprop's gamma without 1 - m", BY, "* square_root(unit, xp)", "* 1.0", NUMPY),
    Mutant("lead 1 by default", BY, "lead = 1 + momentum if", "lead = 1.0 if", NUMPY),
    Mutant("the lead left out of alpha beta", BY, "(1 - momentum) * lead)", "(1 - momentum))", NUMPY),
    Mutant("both parametrizations accepted", BY, "if (value := getattr(algorithm, name)) is not None:", "if False:", rows("numpy", "matrix/test_momentum.py")),
    Mutant("psi's sign", "inna_core/psi.py", "* theta - beta * velocity", "* theta + beta * velocity", CORE),
    Mutant("psi's alpha", "inna_core/psi.py", "(1 / beta - alpha) * theta", "(1 / beta) * theta", CORE),
    Mutant("dtype not compared", "inna_core/_validation.py", "if array.dtype != theta.dtype:", "if False:", NUMPY),
    Mutant("limit 2 / alpha left out", DYNAMICS, "limits.append(2 / alpha)", "pass", CORE),
    Mutant("limit beta + alpha / h left out", DYNAMICS, "[beta + alpha / h]", "[math.inf]", CORE),
    Mutant("larger root as the limit", DYNAMICS, "(1 + math.sqrt(", "(1 - math.sqrt(", CORE),
    Mutant("limit of leads below 1 left out", DYNAMICS, "[forget / h / (1 - lead)]", "[math.inf]", CORE),
    Mutant("energy without alpha beta", DYNAMICS, "2 * (1 + alpha_beta) * loss", "2 * loss", CORE),
    Mutant("energy of half the velocity", DYNAMICS, "squared_modulus(v, xp)", "squared_modulus(v, xp) / 2", CORE),
    Mutant("float64 scalars let through", "inna_core/_validation.py", "    return number\n\n\n", "    return value\n\n\n", CORE),
    Mutant("0-d results left as scalars", "inna_core/_validation.py", "return x[...] if", "return x if", NUMPY),
    Mutant("complex gradients squared, not their modulus", "inna_core/_validation.py", "ns.real(ns.conj(x) * x) if is_complex(x) else x * x", "x * x", rows("numpy", "matrix/test_complex.py")),
    Mutant("in place: parts of a block left out", "inna_core/in_place.py", "range(0, shape[0], rows)", "range(0, shape[0], rows + 1)", rows("plain_update", "core/test_in_place.py")),
    Mutant("in place: shared memory accepted", "inna_core/in_place.py", ".shares_memory(x, y):", ".shares_memory(x, y) and False:", rows("check_fails", "core/test_in_place.py")),
    Mutant("in place: elements that share memory written", "inna_core/in_place.py", "outer >= stride * n", "outer >= 0", rows("stay_as_they_are", "core/test_in_place.py")),
    Mutant("loop: the schedule one step late", "inna_core/loop.py", "lr_of(k)", "lr_of(k + 1)", rows("numpy", "core/test_loop.py")),
    Mutant("loop: given arrays overwritten", "inna_core/loop.py", "asarray(x, copy=True)", "asarray(x)", rows("numpy", "core/test_loop.py")),
    Mutant("loop: gradients checked one by one", "inna_core/loop.py", "                check(algorithm, g, s, x, now, **decay)", "                pass", rows("bad_gradient", "core/test_loop.py")),
    Mutant("scipy: steps that raise the energy accepted", f"{SCIPY}/_steps.py", "if not energy_grows(", "if np.isfinite(fun) or not energy_grows(", rows("", MINIMIZATION)),
    Mutant("scipy: no restart", f"{SCIPY}/_steps.py", "if grad @ (x - now.x) > 0:", "if False:", rows("", MINIMIZATION)),
    Mutant("scipy: velocity kept at a bound", f"{SCIPY}/_steps.py", "np.where(x == free, after.velocity, 0.0)", "after.velocity", rows("", MINIMIZATION)),
    Mutant("scipy: probes leave the box", f"{SCIPY}/_steps.py", "d = box.projected(x + radius / np.linalg.norm(direction) * direction) - x", "d = radius / np.linalg.norm(direction) * direction", rows("", MINIMIZATION)),
    Mutant("scipy: differences leave the box", f"{SCIPY}/_problem.py", "self._eps, -self._eps)", "self._eps, self._eps)", rows("", MINIMIZATION)),
    Mutant("scipy: the gradient, not its projection", f"{SCIPY}/_problem.py", "return x - self.projected(x - gradient) if self.is_bounded else gradient", "return gradient", rows("", MINIMIZATION)),
    Mutant("monitor: energy without the velocity", DYNAMICS, "* loss + velocity_square", "* loss", rows("energy_weighs", "monitor/test_core.py")),
    Mutant("monitor: velocities of INNAprop not weighed", MONITOR, "else D * squares)", "else squares)", rows("energy_weighs", "monitor/test_core.py")),
    Mutant("monitor: sharpness of -H", MONITOR, "w = product(q)", "w = [-x for x in product(q)]", rows("enough_products", "monitor/test_core.py")),
    Mutant("monitor: ratio inverted", MONITOR, "else h / limit", "else limit / h", rows("the_ratio", "monitor/test_core.py")),
    Mutant("monitor: torch samples one step late", f"{TORCH}/monitoring.py", "if self.step % self.every == 0:", "if (self.step - 1) % self.every == 0:", rows("called_back", "monitor/test_torch.py")),
    Mutant("monitor: torch's buffers not put back", f"{TORCH}/monitoring.py", "            buffer.copy_(value)\n", "", rows("changes_no_bit", "monitor/test_torch.py")),
    Mutant("monitor: Hessian of INNAprop not scaled in torch", f"{TORCH}/monitoring.py", "return [x * root for x, root in zip(images, roots, strict=True)]", "return images", rows("network_is", "monitor/test_torch.py")),
    Mutant("monitor: optax samples one step late", "adapters/inna_optax/monitoring.py", "(step % every == 0)", "((step - 1) % every == 0)", rows("optax-jit", "monitor/test_hosts.py")),
    Mutant("monitor: Keras draws from torch's generators", "adapters/inna_keras/monitoring.py", "with unchanged_generators(values), keras.", "with contextlib.nullcontext(), keras.", rows("torch and changes_no_bit", "monitor/test_keras.py")),
    Mutant("optax: state not computed after the parameters", "inna_core/evaluation_order.py", "grad * one_after(written, xp)", "grad", rows("copies_nothing", "optax_host/test_compiled.py")),
    Mutant("second moment of g, not g^2", PROP, "* squared_modulus(g, ns)", "* g", NUMPY),
    Mutant("sigma and 1 - sigma swapped", PROP, "sigma * s + (1 - sigma)", "(1 - sigma) * s + sigma", NUMPY),
    Mutant("no bias correction", PROP, "s_hat = s * (1 / bias_correction(sigma, k, ns))", "s_hat = s", NUMPY),
    Mutant("bias correction one step late", PROP, "k = state.step + 1", "k = state.step + 2", NUMPY),
    Mutant("eps under the root", PROP, "ns.sqrt(s_hat) + eps", "ns.sqrt(s_hat + eps)", NUMPY),
    Mutant("velocity driven by g", PROP, "inertial_step(q, v", "inertial_step(g, v", NUMPY),
    Mutant("bfloat16 squares in bfloat16", PROP, "if is_narrow(theta):\n            g,", "if False:\n            g,", rows("arrays and bfloat16", LOCKSTEP)),
    Mutant("decay's sign", "inna_core/weight_decay.py", "d = -(lr", "d = (lr", NUMPY),
    Mutant("decay without lr", "inna_core/weight_decay.py", "-(lr * weight_decay)", "-(weight_decay)", NUMPY),
    Mutant("decay after the published fashion always", "inna_core/weight_decay.py", "if published:", "if True:", NUMPY),
    Mutant("published decay without alpha", "inna_core/weight_decay.py", "(1 / algorithm.beta - algorithm.alpha) * d", "(1 / algorithm.beta) * d", NUMPY),
    Mutant("compensation forgotten", "inna_core/compensation.py", "y = delta + compensation", "y = delta", rows("torch-bfloat16 and not keras", LOCKSTEP)),
    Mutant("compensation's sign", "inna_core/compensation.py", "rounded(y - (", "rounded((", rows("torch-bfloat16 and not keras", LOCKSTEP)),
    Mutant("torch: float16 arithmetic", f"{TORCH}/_tensors.py", "return WIDER.get(dtype, dtype)", "return dtype", rows("torch-bfloat16 and not keras", LOCKSTEP)),
    Mutant("torch: rounding left to the compiler", f"{TORCH}/paths/compiled.py", "state, rounded_by_bits)", "state)", rows("torch-inductor", LOW, LOCKSTEP)),
    Mutant("torch: bits rounded down", f"{TORCH}/paths/single.py", "(2 ** (dropped - 1) - 1)", "0", rows("rounds_by_bits", LOW)),
    Mutant("torch: compiled for one length", f"{TORCH}/paths/compiled.py", 'tracing_mode="symbolic"', 'tracing_mode="fake"', rows("torch-inductor", LOCKSTEP)),
    Mutant("torch: steps not counted", f"{TORCH}/_batch.py", "self.counters[0], self.step + 1)", "self.counters[0], self.step)", rows("torch-foreach", "matrix/test_innaprop.py")),
    Mutant("torch: traced values copied at once", f"{TORCH}/paths/single.py", "    if torch.compiler.is_compiling():\n        # after", "    if False:\n        # after", rows("through_inductor", "torch_host/test_compilation.py")),
    Mutant("torch: state cast on load", f"{TORCH}/_optimizer.py", "else state_dtype(p.dtype)\n    return value.to", "else p.dtype\n    return value.to", rows("torch-single and save_and_resume", CONTRACTS)),
    Mutant("torch: lr frozen", f"{TORCH}/_optimizer.py", "hyper = hyperparameters(self.algorithm, group)\n            for batch in", 'hyper = hyperparameters(self.algorithm, {**group, "lr": self.defaults["lr"]})\n            for batch in', rows("torch-foreach", LOCKSTEP)),
    Mutant("torch: tensors that share memory flattened", f"{TORCH}/_tensors.py", "len(block[0]) == 1 or share_memory(block[0])", "len(block[0]) == 1", rows("memory", "torch_host/test_small_tensors.py")),
    Mutant("torch: the SGD kernel's momentum", f"{TORCH}/paths/fused_sgd.py", "momentum=r * s_next / s", "momentum=s_next / s", rows("torch-fused", LOCKSTEP)),
    Mutant("torch: the SGD kernel's units", f"{TORCH}/paths/fused_sgd.py", "math.sqrt(s / size)", "s / size", rows("torch-fused", "matrix")),
    Mutant("torch: the true velocity not shown", f"{TORCH}/_scaled_state.py", ".div_(self.scale)", ".div_(1.0)", rows("torch-fused", "matrix")),
    Mutant("torch: a velocity that was read is scaled again", f"{TORCH}/_scaled_state.py", "            self.scale = None\n        return", "            pass\n        return", rows("", "torch_host/test_state.py")),
    Mutant("torch: the AdamW kernel's velocity step", f"{TORCH}/paths/fused_adamw.py", "-gamma * one_minus_alpha_beta / beta", "-gamma * one_minus_alpha_beta", rows("torch-fused", LOCKSTEP)),
    Mutant("torch: the AdamW kernel's own friction", f"{TORCH}/paths/fused_adamw.py", "weight_decay=-1 / one_minus_alpha_beta", "weight_decay=1 / one_minus_alpha_beta", rows("torch-fused", LOCKSTEP)),
    Mutant("torch: the AdamW kernel far out", f"{TORCH}/paths/fused_adamw.py", "MAX_AMPLIFICATION = 1.25", "MAX_AMPLIFICATION = 1e9", rows("accurate or torch-fused", "torch_host/test_path_selection.py", LOCKSTEP)),
    Mutant("torch: counts that differ taken for one", f"{TORCH}/_batch.py", "len(set(steps)) == 1 == len(", "1 == len(", rows("as_if_alone", "torch_host/test_features.py")),
    Mutant("optax: float16's small compensations lost", OPTAX, "multiple = jnp.round(x * 2.0**24) * 2.0**-24", "multiple = (x + 0.75) - 0.75", rows("same_on_every_host and optax", LOW)),
    Mutant("keras on torch: the gradient's own part", f"{TORCH}/paths/fused_sgd.py", "else -gamma * gap / r", "else -gamma * gap", rows("keras-torch", LOCKSTEP)),
    Mutant("keras on torch: the wrong group decays", KERAS, "self.weight_decay if self.weight_decay and self._use_weight_decay(variable) else 0.0", "0.0 if self.weight_decay and self._use_weight_decay(variable) else self.weight_decay or 0.0", rows("torch and excluded_from_decay", KERAS_HOST)),
    Mutant("optax: schedule one step late", OPTAX, "self.current_lr(state.step)", "self.current_lr(state.step + 1)", rows("optax-float", LOCKSTEP)),
    Mutant("optax: steps not counted", OPTAX, "optax.safe_increment(state.step)", "state.step", rows("optax", "matrix/test_innaprop.py")),
    Mutant("optax: eager steps in the order for compilers", OPTAX, "isinstance(x, Tracer) and jax.default", "jax.default", rows("eager", "optax_host/test_compiled.py")),
    Mutant("optax: lr in float64", OPTAX, "lr=as_scalar(lr, scalar_dtype)", "lr=lr", rows("optax-float32 and decaying", LOCKSTEP)),
    Mutant("optax: injected integers refused", OPTAX, "value.astype(float) if integral else value", "value", rows("integers_can_be_injected", INJECTIONS)),
    Mutant("optax: a compensation for nothing", OPTAX, "compensated = self.kahan_sum or any(", "compensated = True or any(", rows("map_params_lays", COMPOSITIONS)),
    Mutant("optax: updates as narrow as gradients", OPTAX, "return grad if narrow else velocity", "return grad", rows("another_precision", COMPOSITIONS)),
    Mutant("keras: velocity not kept", KERAS, "self.assign(slot, getattr(new_state, name))", "pass", rows("keras-jax", LOCKSTEP)),
    Mutant("keras: decayed twice", KERAS, "    def _apply_weight_decay(self, variables: list[Any]) -> None:", "    def _unused(self, variables: list[Any]) -> None:", rows("keras-jax", LOCKSTEP)),
    Mutant("keras: bad gradients found too late", KERAS, "None if gradient is None else checked_gradient(gradient, variable)", "gradient", rows("keras-jax and a_bad_gradient", CONTRACTS)),
    Mutant("keras: shapes that are lost stay lost", "adapters/inna_keras/_tensors.py", "ops.reshape(gradient, expected) if None in known else gradient", "gradient", rows("shape_is_unknown", KERAS_HOST)),
    Mutant("keras: variables loaded one by one", KERAS, "if len(store) == len(self.variables):", "if False:", rows("all_or_none", KERAS_HOST)),
    Mutant("keras: a damping that is set is forgotten", KERAS, "        optimizer.algorithm = algorithm\n", "        pass\n", rows("dampings_and_decay", KERAS_HOST)),
    Mutant("keras: wrong count", KERAS, "wide(self.iterations)", "wide(self.iterations + 1)", rows("keras-jax", LOCKSTEP)),
    Mutant("portable: the digest is not compared", f"{PORTABLE}/file.py", "if hashed.hexdigest().encode() != digest:", "if False:", FILES),
    Mutant("portable: later versions are read", f"{PORTABLE}/file.py", "if version != VERSION:", "if False:", FILES),
    Mutant("portable: complex arrays come back real", f"{PORTABLE}/file.py", "if is_complex else array", "if False else array", FILES),
    Mutant("portable: written in place", f"{PORTABLE}/file.py", 'with open(temporary, "xb") as file:', 'with open(target, "wb") as file:', SAVES),
    Mutant("portable: a failed save leaves its temporary file", f"{PORTABLE}/file.py", "            os.unlink(temporary)\n", "            pass\n", SAVES),
    Mutant("portable: a link is replaced", f"{PORTABLE}/file.py", "os.path.realpath(path)", "os.fspath(path)", SAVES),
    Mutant("portable: square kernels need no layout", f"{PORTABLE}/fitting.py", "if array.ndim >= 2 and state.framework", "if False and state.framework", FITTING),
    Mutant("portable: other dampings are taken", f"{PORTABLE}/fitting.py", 'if hyperparameters == "same":', "if False:", FITTING),
    Mutant("portable: other algorithms are taken", f"{PORTABLE}/fitting.py", "if state.algorithm != like.algorithm:", "if False:", FITTING),
    Mutant("portable: convolutions with channels in the wrong order", f"{PORTABLE}/layouts.py", "return (ndim - 1, ndim - 2, *range(ndim - 2))", "return (ndim - 2, ndim - 1, *range(ndim - 2))", rows("layouts_are or mapping", "portable/test_fitting.py")),
    Mutant("torch: the authors' psi is taken for the velocity", f"{TORCH}/portable.py", "velocity_from_psi(psi, theta, alpha=by.alpha, beta=by.beta)", "psi", rows("published_code", "portable/test_torch_states.py")),
    Mutant("torch: a state that is loaded loses its steps", f"{TORCH}/portable.py", 'torch.tensor(fitted.step_of(name)), p', 'torch.tensor(0.0), p', rows("bit_by_bit", "portable/test_torch_states.py")),
)  # fmt: skip


def passes(tests: Rows, mutant: Mutant | None = None) -> bool:
    """Return whether the selected tests pass in a scratch copy, with one mistake or none."""
    with tempfile.TemporaryDirectory() as scratch:
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, Path(scratch) / part)
        if mutant:
            target = Path(scratch) / mutant.file
            text = target.read_text()
            if text.count(mutant.old) != 1:
                raise SystemExit(f"{mutant.name}: {mutant.old!r} occurs {text.count(mutant.old)} times in {target}")
            target.write_text(text.replace(mutant.old, mutant.new))
        where = [f"conformance_tests/{name}" for name in tests.where]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-k", tests.names, *where]
        # an installed checkout must not answer for the scratch copy
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([scratch, str(Path(scratch) / "adapters")])}
        done = subprocess.run(command, cwd=scratch, env=env, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{tests}: pytest failed to run\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done.returncode == 0


def together(chosen: Iterable[Rows]) -> list[Rows]:
    """Return the same tests in few runs: those of the same files in one."""
    names: dict[tuple[str, ...], dict[str, None]] = {}
    for tests in chosen:
        names.setdefault(tests.where, {})[tests.names] = None
    return [
        rows("" if "" in found else " or ".join(f"({one})" for one in found), *where) for where, found in names.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="mutants whose name contains one of these; all if none"
    )
    names: list[str] = parser.parse_args().names
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    console = Console()
    # a selection that fails as it is would find any mutant
    for tests in track(together(mutant.rows for mutant in chosen), "without mistakes", console=console):
        if not passes(tests):
            raise SystemExit(f"{tests} fails without any mistake")
    surviving = []
    for mutant in track(chosen, "mutants", console=console):
        if passes(mutant.rows, mutant):
            surviving.append(mutant.name)
            console.print(f"[red]survives[/red]: {mutant.name}")
        else:
            console.print(f"found: {mutant.name}")
    console.print(f"{len(chosen) - len(surviving)} of {len(chosen)} mutants found")
    if surviving:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
