"""Draw the figures of docs/dynamics.md, each for light and for dark pages. The same files come out each time."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.dynamics import phase_portraits, side_by_side, spurious_points, stability, training_energy
from benchmarks.dynamics.look import LOOKS, drawn_in, save

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "figures"

FIGURES = {
    "dynamics-phase-portraits": phase_portraits.draw,
    "dynamics-side-by-side": side_by_side.draw,
    "dynamics-stability": stability.draw,
    "dynamics-energy": training_energy.draw,
    "dynamics-spurious-points": spurious_points.draw,
}
"""By name of the file: what draws it in given colours."""


def draw(folder: Path) -> list[Path]:
    """Write all figures and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for look in LOOKS:
        with drawn_in(look):
            for name, figure in FIGURES.items():
                written.append(folder / f"{name}-{look.name}.svg")
                save(figure(look), written[-1])
    return written


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks dynamics", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the SVG files (default: docs/figures)")
    for path in draw(parser.parse_args(arguments).out):
        print(path)
    return 0
