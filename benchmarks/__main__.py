"""Commands of the benchmarks.

    python -m benchmarks training            tune and train; resumes where it was interrupted
    python -m benchmarks training-sweep      vary INNA's hyperparameters over a grid
    python -m benchmarks training-transfer   train INNA and INNAprop with SGD's and AdamW's tuned settings
    python -m benchmarks training-ablation   change warm-up and batch of the settings carried over
    python -m benchmarks training-long       train long tasks with published settings
    python -m benchmarks training-gpu        train CIFAR-10 on a GPU, for as many epochs as fit into some minutes
    python -m benchmarks training-free       train with optimizers that choose their step sizes, beside summary-Newton
    python -m benchmarks training-starts     train with the defaults, and with settings to start with
    python -m benchmarks training-repeat     train the chosen settings again, and compare with what is stored
    python -m benchmarks training-report     write the tables and figures of the pages from the stored results
    python -m benchmarks dynamics            draw the figures of docs/dynamics.md

--help after a command lists its options. The other benchmarks are modules: python -m benchmarks.torch_step, and so on.
"""

import importlib
import sys
from importlib.util import find_spec

BASE = {"torch": "torch", "numpy": "numpy", "sklearn": "scikit-learn", "scipy": "scipy", "rich": "rich"}
IMAGES = {**BASE, "PIL": "pillow"}
# a command's module, and the packages it needs with the names by which pip knows them
COMMANDS: dict[str, tuple[str, dict[str, str]]] = {
    "training": ("benchmarks.training.study", {**IMAGES, "optuna": "optuna"}),
    "training-sweep": ("benchmarks.training.sweep", BASE),
    "training-transfer": ("benchmarks.training.transfer", IMAGES),
    "training-ablation": ("benchmarks.training.ablation", IMAGES),
    "training-long": ("benchmarks.training.long", BASE),
    "training-gpu": ("benchmarks.training.gpu", IMAGES),
    "training-free": (
        "benchmarks.training.free",
        {**BASE, "prodigyopt": "prodigyopt", "schedulefree": "schedulefree"},
    ),
    "training-starts": ("benchmarks.training.starts", IMAGES),
    "training-repeat": ("benchmarks.training.repeat", {**IMAGES, "optuna": "optuna"}),
    "training-report": ("benchmarks.training.report", {**BASE, "optuna": "optuna", "matplotlib": "matplotlib"}),
    "dynamics": ("benchmarks.dynamics.command", {"numpy": "numpy", "matplotlib": "matplotlib"}),
}


def main(arguments: list[str]) -> int:
    """Run a command and return its exit status; 2 where it is unknown or lacks a package."""
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    module, needs = COMMANDS[arguments[0]]
    absent = [project for package, project in needs.items() if find_spec(package) is None]
    if absent:
        print(f"{arguments[0]} needs {', '.join(absent)}: python -m pip install {' '.join(absent)}", file=sys.stderr)
        return 2
    return importlib.import_module(module).main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
