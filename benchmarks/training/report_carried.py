"""Tables of the settings carried over, of the long runs, and of what was changed to understand them."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.training import ablation, gpu, long, transfer
from benchmarks.training.carried_scores import (
    GPT_TASK,
    LEADS,
    LONG_NAMES,
    Comparison,
    Ends,
    Finals,
    chosen_lead,
    compare,
    compared,
    finals_of,
    seven,
    verdict,
)
from benchmarks.training.long_rows import DECAYED, DECAYS, GPT_DECAY, LongRow
from benchmarks.training.long_rows import ROWS as LONG_ROWS
from benchmarks.training.long_tasks import LONG
from benchmarks.training.results import Store
from benchmarks.training.tables import number, percent, table
from benchmarks.training.tasks import TASKS, Task
from benchmarks.training.transfer import BY_NAME, CHOOSING, CONFIRMING

ADAMW_ROWS = ("adamw-less", "adamw-more", "nadam", "nadam-constant", *LEADS, "innaprop-lead-m-less", "innaprop")
SGD_ROWS = ("heavy-ball", *(transfer.lead_name("inna", lead) for lead in transfer.LEADS), "inna")


CIFAR_PEERS = {"momentum": "momentum", "inna-1.9": "momentum"}
"""By row, the one whose setting it has; AdamW where it is not in here."""


def task_of(name: str) -> Task:
    return TASKS[name] if name in TASKS else LONG[name].task


def saved(comparison: Comparison | None) -> str:
    """Return how much sooner a row is, in per cent."""
    if comparison is None:
        return ""
    if math.isnan(comparison.sooner):
        return "–"
    return percent(comparison.sooner) if math.isfinite(comparison.sooner) else "not reached"


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
    found = {name: found for name in ADAMW_ROWS if (found := seven(store, name))}
    rows = []
    for task in (*TASKS, GPT_TASK):
        peer = seven(store, "adamw").get(task)
        if peer is not None:
            seeds = {c[task].seeds for c in found.values() if task in c}
            cells = [
                saved(c.get(task)) + (f" (of {c[task].seeds})" if task in c and c[task].seeds < max(seeds) else "")
                for c in found.values()
            ]
            title = f"{task_of(task).title} ({max(seeds)} seeds)"
            rows.append([title, f"{peer.steps:.0f} of {task_of(task).steps:,}", *cells])
    verdicts = {name: verdict(c) for name, c in found.items()}
    rows += [
        ["**median**", "", *(f"**{percent(verdicts[name].median)}**" for name in found)],
        ["**sooner on**", "", *(f"**{verdicts[name].ahead} of {verdicts[name].tasks}**" for name in found)],
        ["**ends behind on**", "", *(f"**{len(verdicts[name].behind)} of {verdicts[name].tasks}**" for name in found)],
    ]
    return table(heading(found, ["task", "AdamW's steps"]), rows)


def ends_beside_adamw(store: Store) -> str:
    """Return the final validation losses of the same rows."""
    found = {name: found for name in ("adamw", *ADAMW_ROWS) if (found := seven(store, name))}
    rows = []
    for task in (*TASKS, GPT_TASK):
        if task in found["adamw"]:
            cells = [ends(c[task].validation) if task in c else "" for c in found.values()]
            rows.append([task_of(task).title, *cells])
    return table(heading(found, ["task"]), rows)


def carried_short(store: Store) -> str:
    """Return AdamW beside INNAprop with the default lead, on all tasks with two seeds or more, the long ones too."""
    on_gpu = {network.task: f"{network.title}, on a GPU" for network in gpu.NETWORKS.values()}
    titles = {**{task: task_of(task).title for task in (*TASKS, *LONG)}, **on_gpu}
    rows = []
    for task, title in titles.items():
        found = compared(store, task, "innaprop-lead-m" if task in TASKS else LONG_NAMES["innaprop-lead-m"], "adamw")
        if found is not None and found.seeds > 1:
            rows.append([title, str(found.seeds), ends(found.peer), ends(found.validation), saved(found)])
    titles = ["seeds", "AdamW, final validation loss", "INNAprop, same setting", "reaches AdamW's final loss sooner by"]
    return table(["task", *titles], rows)


def leads(store: Store) -> str:
    """Return the median over the short tasks for each lead, on the seeds for the choice and on those to confirm it."""
    rows = []
    best = chosen_lead(store)
    for name in LEADS:
        cells = []
        for seeds in (CHOOSING, CONFIRMING):
            v = verdict({task: c for task, c in seven(store, name, seeds).items() if task in TASKS})
            cells += [percent(v.median), f"{v.ahead} of {v.tasks}"]
        title = BY_NAME[name].title
        rows.append([f"**{title}**" if name == best else title, *cells])
    parts = [f"seeds {', '.join(map(str, seeds))}" for seeds in (CHOOSING, CONFIRMING)]
    names = [f"{what}, {part}" for part in parts for what in ("median", "sooner on")]
    return table(["", *names], rows)


def beside_sgd(store: Store) -> str:
    """Return how much sooner INNA reaches the final loss of SGD with Nesterov's momentum, and where it ends."""
    rows = []
    for task in TASKS:
        found = {name: compared(store, task, name, "momentum") for name in ("momentum", *SGD_ROWS)}
        if found["momentum"] is None:
            continue
        cells = [f"{saved(c)}; {ends(c.validation)}" if c else "" for c in found.values()]
        cells[0] = ends(found["momentum"].validation)
        rows.append([TASKS[task].title, *cells])
    return table(heading(("momentum", *SGD_ROWS), ["task"]), rows)


def difference(finals: Finals, peers: Finals) -> Ends:
    """Return how much higher the final validation losses are than a peer's with the same seeds."""
    peer = {final["seed"]: final["validation"] for final in peers if final["finished"]}
    common = [final for final in finals if final["seed"] in peer]
    return Ends.of([final["validation"] - peer[final["seed"]] if final["finished"] else None for final in common])


def long_runs(
    store: Store, name: str, title: str, task: Task, rows: Iterable[LongRow], peers: Mapping[str, str] | None = None
) -> str:
    """Return the rows of a long task, as far as there are results.

    Args:
        store: the results.
        name: of the task in the results.
        title: of the table.
        task: says what was measured.
        rows: in order.
        peers: by row, what it is put beside; AdamW where it is not in there.
    """
    digits = "{:.2f}".format if task.higher_is_better else "{:.4g}".format
    lines, on_cpu = [], True
    for row in rows:
        stored = store.read(*long.names(name, row.name))
        peer = (peers or {}).get(row.name, "adamw")
        own = compared(store, name, row.name, peer)
        if own is not None:
            finals, on_cpu = stored["final"], "device" not in stored["protocol"]
            seconds = statistics.mean(final["looks"][-1]["seconds"] for final in finals)
            cells = [
                str(len(finals)),
                f"{own.steps:.0f}" if math.isfinite(own.steps) else "–",
                "" if row.name == peer else saved(own),
                "" if row.name == peer else ends(difference(finals, finals_of(store, name, peer)), signed),
                ends(Ends.of([final["validation"] for final in finals]), "{:.4g}".format),
                ends(Ends.of([final["test"] for final in finals]), digits),
                *([f"{seconds:.0f}"] if on_cpu else []),  # a GPU was shared
            ]
            lines.append([row.title, *cells])
    whose = "AdamW" if peers is None else "the peer"
    titles = [
        "seeds",
        f"steps to {whose}'s final loss",
        "sooner",
        f"loss less {whose}'s, same seeds",
        "final validation loss",
        task.metric_name,
        *(["CPU seconds"] if on_cpu else []),
    ]
    return table([f"**{title}**", *titles], lines) if lines else "No results are stored.\n"


def cpu_runs(store: Store, name: str) -> str:
    task = LONG[name].task
    return long_runs(store, name, task.title, task, LONG_ROWS[name].values())


def gpu_runs(store: Store, name: str, title: str, like: str, peers: Mapping[str, str] | None = None) -> str:
    """Return the rows of a task that was trained on a GPU, with those of a task for the CPU."""
    return long_runs(store, name, title, LONG[like].task, LONG_ROWS[like].values(), peers)


def ablations(store: Store, question: str) -> str:
    """Return, for each task, the loss a quarter into the run and at its end, in each case."""
    cases = list(dict.fromkeys(v.case for v in ablation.VARIANTS if v.question == question))
    parts: dict[tuple[str, str], dict[str, str]] = {}
    for task in ablation.ABLATED:
        for variant in (v for v in ablation.VARIANTS if v.question == question):
            stored = store.read(*ablation.names(task, variant))
            finals = [final for final in stored.get("final", []) if final["seed"] in CHOOSING]
            if len(finals) == len(CHOOSING):
                peers = peers_of(store, task, question, variant.case)
                cells = parts.setdefault((TASKS[task].title, variant.title), {})
                own = compare(finals, peers) if peers else None
                quarter = statistics.mean(final["looks"][len(final["looks"]) // 4]["validation"] for final in finals)
                cells[variant.case] = f"{number(quarter)} → {ends(own.validation)}; {saved(own)}" if own else ""
    rows = [[*key, *(cells.get(case, "") for case in cases)] for key, cells in parts.items()]
    return table(["task", "", *cases], rows)


def peers_of(store: Store, task: str, question: str, case: str) -> list[Mapping[str, object]]:
    """Return AdamW's runs in one case."""
    (variant,) = (
        v
        for v in ablation.VARIANTS
        if (v.question, v.case, v.transfer.name) == (question, case, "adamw") and v.title == v.transfer.title
    )
    found = store.read(*ablation.names(task, variant)).get("final", [])
    return [final for final in found if final["seed"] in CHOOSING]


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
    return {
        **{f"long-{name}": cpu_runs(store, name) for name in (GPT_TASK, "gpt-10000", "mnist-20")},
        "long-decays": decays(store),
        "long-gpt-10000-gpu": gpu_runs(store, "gpt-10000-gpu", LONG["gpt-10000"].task.title, "gpt-10000"),
        **{
            f"long-{network.task}": gpu_runs(store, network.task, network.title, "cifar10-nin-5", CIFAR_PEERS)
            for network in gpu.NETWORKS.values()
        },
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
