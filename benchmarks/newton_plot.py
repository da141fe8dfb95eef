"""Plot step sizes over time, one line a group, from the CSV file that newton_training.py --log wrote.

python benchmarks/newton_training.py digits --rows summary-inna --log sizes.csv
python benchmarks/newton_plot.py sizes.csv sizes.png
"""

import argparse
import csv
from collections import defaultdict

import matplotlib

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
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for group, (steps, sizes) in lines.items():
        # a step size of 0 has no place on a logarithmic axis: a gap in the line
        axes.plot(steps, [size or float("nan") for size in sizes], label=group)
    axes.set(xlabel="training step", ylabel="step size $\\lambda_1 \\eta_s$", yscale="log")
    axes.legend()
    figure.savefig(arguments.picture, dpi=150)


if __name__ == "__main__":
    main()
