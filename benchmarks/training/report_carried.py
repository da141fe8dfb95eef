"""Tables of the settings carried over, of the long runs, and of what was changed to understand them."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.training import ablation, gpu, long, transfer
from benchmarks.training.carried_scores import (
    GPT_TASK,
    LEADS,
    TITLES,
    Comparison,
    Ends,
    beside_adamw,
    chosen_lead,
    compare,
    compared,
    finals_of,
    on_short_tasks,
    verdict,
)
from benchmarks.training.long import LONG
from benchmarks.training.long_rows import DECAYED, DECAYS, GPT_DECAY
from benchmarks.training.long_rows import ROWS as LONG_ROWS
from benchmarks.training.results import Store, final_loss
from benchmarks.training.scores import Finals
from benchmarks.training.tables import number, percent, table
from benchmarks.training.tasks import TASKS
from benchmarks.training.transfer import BY_NAME, CHOOSING, CONFIRMING

ADAMW_ROWS = ("adamw-less", "adamw-more", "nadam", "nadam-constant", *LEADS, "innaprop-lead-m-less", "innaprop")
SGD_ROWS = ("heavy-ball", *(transfer.lead_name("inna", lead) for lead in transfer.LEADS), "inna")
CIFAR_PEERS = {"momentum": "momentum", "inna-1.9": "momentum"}
"""The rows on CIFAR-10 that have SGD's setting, not AdamW's."""

SAME_TASK = (
    *((task, "innaprop-lead-m", "nadam-constant") for task in (*TASKS, GPT_TASK)),
    *(("gpt-10000", f"innaprop-1.9-{lr}", f"adamw-{lr}") for lr in ("less", "least")),
    *(("mnist-20", f"innaprop-1.9-{lr}", f"adamw-{lr}") for lr in ("less", "more")),
    ("gpt-10000", "innaprop-published", "adamw-less"),
    ("gpt-10000", "innaprop-published", "innaprop-true"),
    *((GPT_TASK, f"innaprop-published{d}", f"innaprop-true{d}") for d in ("", "-decay-0.3", "-decay-1")),
)
PAIRS = (
    *((task, name, task, peer) for task, name, peer in SAME_TASK),
    *(("gpt-10000-gpu", name, "gpt-10000", name) for name in ("adamw", "innaprop-3")),
)
"""Rows whose final losses are compared: the task and name of one, and of the other."""


def saved(comparison: Comparison | None) -> str:
    """Return how much sooner a row is, in per cent."""
    if comparison is None:
        return ""
    return "–" if math.isnan(comparison.sooner) else percent(comparison.sooner)


def seeds_range(comparison: Comparison) -> str:
    """Return, in parentheses, how much sooner the slowest and the fastest seed are; nothing for a single seed."""
    known = sorted(part for part in comparison.by_seed if not math.isnan(part))
    if len(known) < 2 or known[-1] == -math.inf:
        return ""
    low, high = percent(known[0]).removesuffix(" %"), percent(known[-1])
    return f" ({low} … {high})"


def ends(found: Ends, digits: Callable[[float], str] = number) -> str:
    if not math.isfinite(found.mean):
        return "diverged"
    return digits(found.mean) + ("" if math.isnan(found.deviation) else f" ± {found.deviation:.2g}")


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def heading(names: Iterable[str], first: Sequence[str]) -> list[str]:
    return [*first, *(BY_NAME[name].title for name in names)]


def sooner_than_adamw(store: Store) -> str:
    """Return how much sooner each row reaches AdamW's own final loss, on each task and over all."""
    found = {name: found for name in ADAMW_ROWS if (found := beside_adamw(store, name))}
    rows = []
    for task, peer in beside_adamw(store, "adamw").items():
        seeds = max(c[task].seeds for c in found.values() if task in c)
        cells = [
            saved(c.get(task)) + (f" (of {c[task].seeds})" if task in c and c[task].seeds < seeds else "")
            for c in found.values()
        ]
        steps = (TASKS | LONG)[task].steps
        rows.append([f"{TITLES[task]} ({seeds} seeds)", f"{peer.steps:.0f} of {steps:,}", *cells])
    verdicts = [verdict(comparisons) for comparisons in found.values()]
    rows += [
        ["**median**", "", *(f"**{percent(v.median)}**" for v in verdicts)],
        ["**sooner on**", "", *(f"**{v.ahead} of {v.tasks}**" for v in verdicts)],
        ["**ends behind on**", "", *(f"**{len(v.behind)} of {v.tasks}**" for v in verdicts)],
    ]
    return table(heading(found, ["task", "AdamW's steps"]), rows)


def ends_beside_adamw(store: Store) -> str:
    """Return the final validation losses of the same rows."""
    found = {name: found for name in ("adamw", *ADAMW_ROWS) if (found := beside_adamw(store, name))}
    rows = [
        [TITLES[task], *(ends(c[task].validation) if task in c else "" for c in found.values())]
        for task in found["adamw"]
    ]
    return table(heading(found, ["task"]), rows)


def carried_short(store: Store) -> str:
    """Return AdamW beside INNAprop with the default lead, on all tasks with two seeds or more, the long ones too."""
    rows = []
    for task, title in TITLES.items():
        found = compared(store, task, "innaprop-lead-m", "adamw")
        if found is not None and found.seeds > 1:
            rows.append(
                [title, str(found.seeds), ends(found.peer), ends(found.validation), saved(found) + seeds_range(found)]
            )
    titles = ["seeds", "AdamW, final validation loss", "INNAprop, same setting", "sooner to AdamW's final loss (seeds)"]
    return table(["task", *titles], rows)


def leads(store: Store) -> str:
    """Return the median over the short tasks for each lead, on the seeds for the choice and on those to confirm it."""
    best, parts = chosen_lead(store), (CHOOSING, CONFIRMING)
    rows = []
    for name in LEADS:
        verdicts = [on_short_tasks(store, name, seeds) for seeds in parts]
        cells = [cell for v in verdicts for cell in (percent(v.median), f"{v.ahead} of {v.tasks}")]
        title = BY_NAME[name].title
        rows.append([f"**{title}**" if name == best else title, *cells])
    seeds = [f"seeds {', '.join(map(str, seeds))}" for seeds in parts]
    return table(["", *(f"{what}, {part}" for part in seeds for what in ("median", "sooner on"))], rows)


def beside_sgd(store: Store) -> str:
    """Return how much sooner INNA reaches the final loss of SGD with Nesterov's momentum, and where it ends."""
    rows = []
    for task in TASKS:
        found = [compared(store, task, name, "momentum") for name in ("momentum", *SGD_ROWS)]
        if found[0] is not None:
            cells = [f"{saved(c)}; {ends(c.validation)}" if c else "" for c in found[1:]]
            rows.append([TASKS[task].title, ends(found[0].validation), *cells])
    return table(heading(("momentum", *SGD_ROWS), ["task"]), rows)


def differences(finals: Finals, peers: Finals) -> list[float | None]:
    """Return how much higher the final validation losses are than a peer's with the same seeds; None if diverged."""
    losses, others = ({final["seed"]: final_loss(final) for final in part} for part in (finals, peers))
    known = {seed: other for seed, other in others.items() if other is not None and seed in losses}
    return [None if (loss := losses[seed]) is None else loss - other for seed, other in known.items()]


def pairs(store: Store) -> str:
    """Return the differences of final losses that the text speaks of, and that no other table has."""
    rows = []
    for task, name, peer_task, peer in PAIRS:
        found = differences(finals_of(store, task, name), finals_of(store, peer_task, peer))
        if found:
            each = ", ".join("diverged" if d is None else signed(d) for d in found)
            other = peer if peer_task == task else f"{peer} on a CPU"
            rows.append([TITLES[task.removesuffix("-gpu")], name, other, ends(Ends.of(found), signed), each])
    return table(["task", "row", "less", "mean", "each seed"], rows)


def long_runs(store: Store, name: str, like: str, title: str, peers: Mapping[str, str] | None = None) -> str:
    """Return the rows of a long task, as far as there are results.

    Args:
        store: the results.
        name: of the task in the results.
        like: the long task that has its rows and its metric.
        title: of the table.
        peers: by row, what it is compared with; AdamW for the others.
    """
    task, lines, on_cpu = LONG[like], [], True
    digits = "{:.2f}".format if task.higher_is_better else "{:.4g}".format
    for row in LONG_ROWS[like].values():
        peer = (peers or {}).get(row.name, "adamw")
        own = compared(store, name, row.name, peer)
        if own is not None:
            stored = store.read(*long.names(name, row.name))
            finals, on_cpu = stored["final"], "device" not in stored["protocol"]
            seconds = statistics.mean(final["evaluations"][-1]["seconds"] for final in finals)
            beside = [
                saved(own) + seeds_range(own),
                ends(Ends.of(differences(finals, finals_of(store, name, peer))), signed),
            ]
            cells = [
                str(len(finals)),
                f"{own.steps:.0f}" if math.isfinite(own.steps) else "–",
                *(["", ""] if row.name == peer else beside),
                ends(Ends.of([final["validation"] for final in finals]), "{:.4g}".format),
                ends(Ends.of([final["test"] for final in finals]), digits),
                *([f"{seconds:.0f}"] if on_cpu else []),  # a GPU was shared
            ]
            lines.append([row.title, *cells])
    whose = "AdamW" if peers is None else "the peer"
    titles = ["seeds", f"steps to {whose}'s final loss", "sooner (seeds)", f"loss less {whose}'s, same seeds"]
    titles += ["final validation loss", task.metric_name, *(["CPU seconds"] if on_cpu else [])]
    return table([f"**{title}**", *titles], lines) if lines else "No results are stored.\n"


def ablations(store: Store, question: str) -> str:
    """Return, for each task, the loss a quarter into the run and at its end, in each case."""
    parts: dict[tuple[str, str], dict[str, str]] = {}
    cases: dict[str, None] = {}
    for task in ablation.TASK_NAMES:
        for (asked, case), runs in ablation.runs(TASKS[task], store).items():
            if asked != question:
                continue
            cases[case] = None
            found = [[f for f in store.read(*run.names).get("final", []) if f["seed"] in CHOOSING] for run in runs]
            adamw = found[0]
            for run, finals in zip(runs, found, strict=True):
                if len(finals) == len(CHOOSING) == len(adamw):
                    own = compare(finals, adamw)
                    quarter = [final["evaluations"][len(final["evaluations"]) // 4]["validation"] for final in finals]
                    cell = f"{number(statistics.mean(quarter))} → {ends(own.validation)}; {saved(own)}"
                    parts.setdefault((TASKS[task].title, run.row.title), {})[case] = cell
    return table(
        ["task", "", *cases], [[*key, *(cells.get(case, "") for case in cases)] for key, cells in parts.items()]
    )


def decays(store: Store) -> str:
    """Return the final losses of the GPT by weight decay."""
    columns = sorted((*DECAYS, GPT_DECAY))
    rows = []
    for name in DECAYED:
        cells = []
        for decay in columns:
            finals = finals_of(store, GPT_TASK, name if decay == GPT_DECAY else f"{name}-decay-{decay:g}")
            losses = [final["validation"] for final in finals if final["seed"] in CHOOSING]
            cells.append(ends(Ends.of(losses), "{:.4g}".format) if losses else "")
        rows.append([LONG_ROWS[GPT_TASK][name].title, *cells])
    return table(["decay", *(f"{decay:g}" for decay in columns)], rows)


def long_tables(store: Store) -> dict[str, str]:
    """Return the tables of the long runs by name."""
    networks = gpu.NETWORKS.values()
    return {
        **{f"long-{name}": long_runs(store, name, name, TITLES[name]) for name in (GPT_TASK, "gpt-10000", "mnist-20")},
        "long-decays": decays(store),
        "pairs": pairs(store),
        "long-gpt-10000-gpu": long_runs(store, "gpt-10000-gpu", "gpt-10000", TITLES["gpt-10000"]),
        **{f"long-{n.task}": long_runs(store, n.task, "cifar10-nin-5", n.title, CIFAR_PEERS) for n in networks},
    }


def blocks(store: Store) -> dict[str, str]:
    """Return the generated parts by name."""
    return {
        "carried-adamw": sooner_than_adamw(store),
        "carried-ends": ends_beside_adamw(store),
        "carried-short": carried_short(store),
        "carried-leads": leads(store),
        "carried-sgd": beside_sgd(store),
        **long_tables(store),
        "ablation-warmup": ablations(store, "warmup"),
        "ablation-batch": ablations(store, "batch"),
    }
