"""`inna_torch.save_state`, `load_state` and `load_published_state`."""

import copy
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

import inna_torch  # noqa: E402
from conformance_tests import oracle  # noqa: E402
from inna_core import portable  # noqa: E402

OPTIMIZERS = {"INNA": inna_torch.INNA, "INNAprop": inna_torch.INNAprop}
EACH = pytest.mark.parametrize("name", OPTIMIZERS)


def model_of(dtype: Any = torch.float64) -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)).to(dtype)


def steps(model: Any, optimizer: Any, n: int, start: int = 0) -> None:
    for k in range(start, start + n):
        generator = torch.Generator().manual_seed(k)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        optimizer.step()


def snapshot(model: Any, optimizer: Any) -> Any:
    return copy.deepcopy((model.state_dict(), optimizer.state_dict()))


def assert_equal(got: Any, want: Any) -> None:
    (got_model, got_state), (want_model, want_state) = got, want
    torch.testing.assert_close(got_model, want_model, rtol=0, atol=0)
    assert got_state["param_groups"] == want_state["param_groups"]
    assert got_state["state"].keys() == want_state["state"].keys()
    for key, entries in want_state["state"].items():
        torch.testing.assert_close(got_state["state"][key], entries, rtol=0, atol=0)


@EACH
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_run_goes_on_bit_by_bit(name: str, dtype: str, tmp_path: Path) -> None:
    model = model_of(getattr(torch, dtype))
    optimizer = OPTIMIZERS[name](model.parameters(), lr=0.01)
    steps(model, optimizer, 3)
    inna_torch.save_state(tmp_path / "state", optimizer, model)
    other = model_of(getattr(torch, dtype))
    restored = OPTIMIZERS[name](other.parameters(), lr=0.01)
    inna_torch.load_state(tmp_path / "state", restored, other)
    for m, o in ((model, optimizer), (other, restored)):
        # the fused kernel would hold the velocity times a factor, whose rounding differs from that of a loaded one
        o.param_groups[0].update(foreach=False)
        steps(m, o, 3, start=3)
    assert_equal(snapshot(other, restored), snapshot(model, optimizer))


@EACH
def test_saving_changes_nothing(name: str, tmp_path: Path) -> None:
    model = model_of()
    optimizer = OPTIMIZERS[name](model.parameters())
    inna_torch.save_state(tmp_path / "state", optimizer, model)  # before the first step
    assert not optimizer.state
    steps(model, optimizer, 2)
    before = snapshot(model, optimizer)
    inna_torch.save_state(tmp_path / "state", optimizer, model)
    assert_equal(snapshot(model, optimizer), before)


def test_parameters_without_gradients_and_groups_of_their_own(tmp_path: Path) -> None:
    """INNAprop counts for each parameter."""
    model = model_of()
    groups = [{"params": list(model[0].parameters()), "alpha": 0.2}, {"params": list(model[1].parameters()), "lr": 0.1}]
    optimizer = inna_torch.INNAprop(groups)
    steps(model[0], optimizer, 2)
    model[1].weight.grad = torch.ones_like(model[1].weight)
    optimizer.step()
    inna_torch.save_state(tmp_path / "state", optimizer, model)
    state = portable.load(tmp_path / "state")
    assert (state.step, dict(state.steps)) == (3, {"1.weight": 1, "1.bias": 0})
    assert state.hyperparameters["0.bias"]["alpha"] == 0.2
    assert state.hyperparameters["1.bias"]["lr"] == 0.1
    other = model_of()
    restored = inna_torch.INNAprop(other.parameters())
    loaded = inna_torch.load_state(tmp_path / "state", restored, other, hyperparameters="own")
    assert [int(restored.state[p]["step"]) for p in other.parameters()] == [3, 3, 1, 0]
    assert loaded.framework == "torch"


def test_groups_keep_their_entries_and_states_those_of_others(tmp_path: Path) -> None:
    model = model_of()
    optimizer = inna_torch.INNA(model.parameters(), lr=0.1)
    steps(model, optimizer, 2)
    inna_torch.save_state(tmp_path / "state", optimizer, model)
    optimizer.param_groups[0].update(lr=0.05, note="mine")
    p = model[0].weight
    optimizer.state[p]["slow"] = torch.ones(2)
    inna_torch.load_state(tmp_path / "state", optimizer, model)
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert optimizer.param_groups[0]["note"] == "mine"
    assert torch.equal(optimizer.state[p]["slow"], torch.ones(2))


def test_parameters_may_stay_as_they_are(tmp_path: Path) -> None:
    model = model_of()
    optimizer = inna_torch.INNA(model.parameters())
    steps(model, optimizer, 2)
    inna_torch.save_state(tmp_path / "state", optimizer, model)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    inna_torch.load_state(tmp_path / "state", optimizer, model, parameters=False)
    assert torch.equal(model[0].weight, torch.ones(3, 3, dtype=torch.float64))


def test_steps_under_inference_mode_can_be_loaded(tmp_path: Path) -> None:
    model = model_of()
    optimizer = inna_torch.INNAprop(model.parameters())
    with torch.inference_mode():
        steps(model, optimizer, 1)
        inna_torch.save_state(tmp_path / "state", optimizer, model)
        inna_torch.load_state(tmp_path / "state", optimizer, model)
    steps(model, optimizer, 1)
    assert not any(x.is_inference() for p in model.parameters() for x in optimizer.state[p].values())


def test_complex_parameters_are_kept(tmp_path: Path) -> None:
    p = torch.nn.Parameter(torch.randn(3, dtype=torch.complex128))
    optimizer = inna_torch.INNAprop([p])
    p.grad = torch.randn(3, dtype=torch.complex128)
    optimizer.step()
    want = dict(optimizer.state[p])
    inna_torch.save_state(tmp_path / "state", optimizer, [("p", p)])
    own = torch.nn.Parameter(torch.zeros_like(p))
    other = inna_torch.INNAprop([own])
    inna_torch.load_state(tmp_path / "state", other, [("p", own)])
    assert torch.equal(own, p)
    torch.testing.assert_close(dict(other.state[own]), want, rtol=0, atol=0)


def damaged(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def rewritten(**changes: Any) -> Any:
    from dataclasses import replace

    return lambda path: portable.save(path, replace(portable.load(path), **changes))


def cast(path: Path) -> None:
    state = portable.load(path)
    values = {name: x.astype(np.float32) for name, x in state.parameters.items()}
    rewritten(parameters=values)(path)


SPOILERS: dict[str, tuple[Any, str]] = {
    "damaged": (damaged, "Invalid path: .*SHA-256"),
    "another algorithm": (rewritten(algorithm="INNA"), "a state of INNA "),
    "another framework": (rewritten(framework="keras"), "Invalid layout: none for '0.weight'"),
    "no parameters": (rewritten(parameters={}), "missing \\['parameter'\\]"),
    "no step": (rewritten(step=None), "no number of steps"),
    "dtype": (cast, "parameter of '0.weight' has dtype float32 \\(expected float64\\)"),
}


@pytest.mark.parametrize("row", SPOILERS)
def test_a_load_that_fails_changes_nothing(row: str, tmp_path: Path) -> None:
    spoil, message = SPOILERS[row]
    model = model_of()
    optimizer = inna_torch.INNAprop(model.parameters())
    steps(model, optimizer, 2)
    inna_torch.save_state(tmp_path / "state", optimizer, model)
    steps(model, optimizer, 2)
    before = snapshot(model, optimizer)
    spoil(tmp_path / "state")
    with pytest.raises(ValueError, match=message):
        inna_torch.load_state(tmp_path / "state", optimizer, model)
    assert_equal(snapshot(model, optimizer), before)


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    model, path = model_of(), tmp_path / "state"
    adam = torch.optim.Adam(model.parameters())
    with pytest.raises(TypeError, match="Invalid optimizer: Adam"):
        inna_torch.save_state(path, adam, model)  # type: ignore[arg-type]
    optimizer = inna_torch.INNAprop(model.parameters())
    with pytest.raises(ValueError, match=r"Invalid model: no name for a parameter of shape \(3, 3\)"):
        inna_torch.save_state(path, optimizer, model[1])
    with pytest.raises(ValueError, match="a name or a tensor occurs twice"):
        inna_torch.save_state(path, optimizer, [("w", p) for p in model.parameters()])
    with pytest.raises(ValueError, match=r"Invalid step: 3 \(expected 0"):
        inna_torch.save_state(path, optimizer, model, step=3)
    assert not path.exists()


class Sharded(torch.nn.Parameter):
    pass


def test_sharded_parameters_are_refused(tmp_path: Path) -> None:
    p = Sharded(torch.ones(2))
    with pytest.raises(ValueError, match="'p' is a Sharded"):
        inna_torch.save_state(tmp_path / "state", inna_torch.INNA([p]), [("p", p)])


# The authors' code: psi and theta of the paper's recurrence, in 50 digits

N, LR = 40, 0.05
DECAYS = [0.0, 0.1]


def published_run(name: str, decay: float) -> tuple[list[Any], list[dict[str, Any]], list[np.ndarray]]:
    """Return theta, and the authors' state, after each step, and the gradients."""
    rng = np.random.default_rng(0)
    theta, grads = rng.standard_normal(5), [rng.standard_normal(5) for _ in range(2 * N)]
    alpha, beta, sigma, eps, gamma = (mpmath.mpf(x) for x in (0.1, 0.9, 0.99, 1e-8, LR))
    theta, iterates, states = oracle.exact(theta), [], []
    psi, s = (1 - alpha * beta) * theta, 0 * theta
    for k, g in enumerate(grads):
        theta = (1 - gamma * mpmath.mpf(decay)) * theta
        q, second = oracle.scaled_gradient(oracle.exact(g), s, k, sigma, eps)
        s, driven = (second, q) if name == "INNAprop" else (s, oracle.exact(g))
        theta, psi = oracle.inna(driven, theta, psi, gamma, alpha, beta)
        iterates.append(oracle.rounded(theta))
        states.append({"psi": oracle.rounded(psi), "exp_avg_sq": oracle.rounded(s), "step": k + 1})
    return iterates, states, grads


@EACH
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("counter", [float, lambda k: torch.tensor([float(k)]), lambda k: torch.tensor(float(k))])
def test_runs_of_the_published_code_go_on(name: str, decay: float, counter: Any) -> None:
    iterates, states, grads = published_run(name, decay)
    p = torch.nn.Parameter(torch.from_numpy(iterates[N - 1].copy()))
    slots = ("psi", "exp_avg_sq") if name == "INNAprop" else ("psi",)
    entries = {slot: torch.from_numpy(states[N - 1][slot]) for slot in slots}
    numbers = {"lr": LR, "alpha": 0.1, "beta": 0.9, "weight_decay": decay, "maximize": False, "capturable": False}
    if name == "INNAprop":
        numbers.update(sigma=0.99, eps=1e-8)
    saved = {
        "state": {0: {**entries, "step": counter(N)}},
        "param_groups": [{**numbers, "params": [0]}],
    }
    optimizer = OPTIMIZERS[name]([p], momentum=0.5)
    inna_torch.load_published_state(optimizer, saved)
    for g in grads[N:]:
        p.grad = torch.from_numpy(g)
        optimizer.step()
    error = np.max(np.abs(p.detach().numpy() - iterates[-1])) / np.max(np.abs(iterates[-1]))
    assert error <= 1e-12


def published(**changes: Any) -> dict[str, Any]:
    entries = {"psi": torch.zeros(3), "exp_avg_sq": torch.zeros(3), "step": torch.tensor(1.0)}
    group = {"lr": 0.1, "alpha": 0.1, "beta": 0.9, "params": [0]}
    return {
        "state": {0: {**entries, **changes.get("state", {})}},
        "param_groups": [{**group, **changes.get("group", {})}],
    }


PUBLISHED_REFUSED = {
    "foreign entry": ({"state": {"exp_avg": torch.zeros(3)}}, "state\\[0\\] has .*'exp_avg'"),
    "shape": ({"state": {"psi": torch.zeros(2)}}, "psi of state\\[0\\] has shape \\(2,\\) \\(expected \\(3,\\)\\)"),
    "second moment's shape": ({"state": {"exp_avg_sq": torch.zeros(2)}}, "exp_avg_sq of state"),
    "decaypower": ({"group": {"decaypower": 0.5}}, "decaypower 0.5 \\(expected 0"),
    "parameters": ({"group": {"params": [0, 1]}}, "groups of \\[2\\] parameters \\(expected \\[1\\]\\)"),
    "beta": ({"group": {"beta": -1.0}}, "Invalid beta: -1.0"),
}


@pytest.mark.parametrize("row", PUBLISHED_REFUSED)
def test_published_states_that_do_not_fit_change_nothing(row: str) -> None:
    changes, message = PUBLISHED_REFUSED[row]
    model = torch.nn.ParameterList([torch.ones(3)])
    optimizer = inna_torch.INNAprop(model.parameters())
    steps(model, optimizer, 1)
    before = snapshot(model, optimizer)
    with pytest.raises(ValueError, match=message):
        inna_torch.load_published_state(optimizer, published(**changes))
    assert_equal(snapshot(model, optimizer), before)


def test_parameters_that_the_published_code_did_not_step_have_no_state() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = inna_torch.INNA([p])
    saved = {"state": {0: {"step": 0}}, "param_groups": [{"lr": 0.2, "alpha": 0.1, "beta": 0.3, "params": [0]}]}
    inna_torch.load_published_state(optimizer, saved)
    assert not optimizer.state
    assert [optimizer.param_groups[0][name] for name in ("lr", "alpha", "beta")] == [0.2, 0.1, 0.3]
    assert optimizer.param_groups[0]["published_decay"] is False
