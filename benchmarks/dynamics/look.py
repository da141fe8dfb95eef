"""What all figures share: colours for light and dark pages, and how a figure becomes a file.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart; on dark pages they are lighter. An
optimizer has the same colour in every figure.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt


@dataclass(frozen=True)
class Look:
    """Colours of a figure.

    Attributes:
        name: "light" or "dark", the page that it is for.
        text: of labels, ticks and frames.
        faint: of contour lines and grids.
        marks: of points that are pointed out.
        inna, heavy_ball, nesterov, gradient_descent: of the optimizers.
        stable: three colours from fast to slow convergence.
        unstable: of divergence.
    """

    name: str
    text: str
    faint: str
    marks: str
    inna: str
    heavy_ball: str
    nesterov: str
    gradient_descent: str
    stable: tuple[str, str, str]
    unstable: str


LOOKS = (
    Look(
        name="light",
        text="#24292f",
        faint="#b6bcc4",
        marks="#24292f",
        inna="#0072b2",
        heavy_ball="#d55e00",
        nesterov="#009e73",
        gradient_descent="#8a5a83",
        stable=("#9ecae1", "#c6dbef", "#e6f0f8"),
        unstable="#fbe3d3",
    ),
    Look(
        name="dark",
        text="#d5d9de",
        faint="#51575f",
        marks="#ffffff",
        inna="#56b4e9",
        heavy_ball="#f0883e",
        nesterov="#2ec99b",
        gradient_descent="#cc9bc4",
        stable=("#1f5c85", "#194462", "#152f42"),
        unstable="#4a2a14",
    ),
)


@contextmanager
def drawn_in(look: Look) -> Iterator[None]:
    """Draw the figures of a with-block in these colours, on a transparent background."""
    text = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color", "legend.labelcolor")
    style: Any = {
        **dict.fromkeys(text, look.text),
        "axes.edgecolor": look.text,
        "axes.facecolor": "none",
        "axes.grid": False,
        "axes.linewidth": 0.7,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "figure.facecolor": "none",
        "font.size": 9,
        "grid.color": look.faint,
        "grid.linewidth": 0.4,
        "legend.frameon": False,
        "lines.linewidth": 1.3,
        "path.simplify_threshold": 0.3,
        "savefig.facecolor": "none",
        "svg.fonttype": "path",
        "svg.hashsalt": "inna",
    }
    with plt.rc_context(style):
        yield


def save(figure: Any, path: Path) -> None:
    """Write a figure as an SVG file with the same bytes each time, and close it."""
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
