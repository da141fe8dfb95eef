"""Plot step sizes over time, one panel a group, from the CSV file that newton_training.py --log wrote.

python benchmarks/newton_training.py digits --rows summary-inna --log sizes.csv
python benchmarks/newton_plot.py sizes.csv docs/newton_step_sizes.png

A step size of 0, where the model's own step would have been negative, has no place on a logarithmic axis: such times
are drawn as crosses along the bottom.
"""

import argparse
import csv
import math
from collections import defaultdict

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("picture")
    parser.add_argument("--seed", default="0")
    arguments = parser.parse_args()
    lines: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    with open(arguments.table, encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["seed"] == arguments.seed:
                steps, sizes = lines[row["group"]]
                steps.append(int(row["step"]))
                sizes.append(float(row["step_size"]))
    columns = min(len(lines), 3)
    rows = math.ceil(len(lines) / columns)
    size = (2.6 * columns + 0.6, 1.9 * rows + 0.4)
    figure, panels = plt.subplots(rows, columns, figsize=size, layout="constrained", sharex=True, sharey=True)
    panels = np.atleast_1d(panels).ravel()
    for axes, (group, (steps, sizes)) in zip(panels, lines.items(), strict=False):
        axes.plot(steps, [size or math.nan for size in sizes], marker=".", markersize=3, linewidth=1)
        none = [step for step, size in zip(steps, sizes, strict=True) if not size]
        axes.plot(none, [0.03] * len(none), "x", color="tab:red", markersize=3, transform=axes.get_xaxis_transform())
        axes.set(yscale="log", title=group)
        axes.grid(alpha=0.3)
    for axes in panels[len(lines) :]:
        axes.remove()
    figure.supxlabel("training step")
    figure.supylabel("step size $\\lambda_1 \\eta_s$ (crosses: 0)")
    figure.savefig(arguments.picture, dpi=100)


if __name__ == "__main__":
    main()
