"""Which optimizers are compared on which parameters, and the targets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from benchmarks.torch_step.layouts import LAYOUTS, Setting

RESNET50 = ("resnet50", "resnet50-groups")
VIT_S = ("vit-s", "vit-s-groups")
PUBLISHED = ("perceptron", "lenet5", "vit-s", "gpt2")  # where the plain loops are timed, which are slow
OLD = ("gpt2", "one", "small")
UNSHARDED = tuple(name for name, layout in LAYOUTS.items() if not layout.sharded)


@dataclass(frozen=True)
class Row:
    """The time of a step of one optimizer, divided by another's.

    Attributes:
        ours: name of the one.
        theirs: name of the other.
        at_most: by layout, the target for float32 on a CPU; a layout may have none.
        layouts: where the two are compared.
    """

    ours: str
    theirs: str
    at_most: Mapping[str, float] = field(default_factory=dict)
    layouts: tuple[str, ...] = UNSHARDED

    def __str__(self) -> str:
        return f"{self.ours} / {self.theirs}"

    def target(self, layout: str, setting: Setting) -> float:
        """Return the most that the ratio should be, infinite where there is no target."""
        if setting.device != "cpu" or setting.dtype != torch.float32:
            return math.inf
        return self.at_most.get(layout, math.inf)

    def unsuitable(self, layout: str, setting: Setting) -> str | None:
        """Return why the row says nothing on this device, or None."""
        if setting.device == "cpu":
            return None
        if LAYOUTS[layout].sharded:
            return "the gloo process group is on the CPU"
        if self.theirs == "AdamW":
            return "torch's default there is AdamW foreach, which has a row"
        return None


def bounds(most: float, *layouts: str) -> dict[str, float]:
    return dict.fromkeys(layouts, most)


ROWS = (
    Row(
        "INNA",
        "SGD fused",
        {
            **bounds(1.35, "perceptron", "lenet5"),
            **bounds(1.1, *RESNET50, *VIT_S, *OLD),
        },
    ),
    Row("INNA foreach", "SGD foreach", bounds(1.5, *OLD)),
    Row(
        "INNAprop",
        "AdamW fused",
        {
            **bounds(1.5, "perceptron"),
            **bounds(2.2, "lenet5", "small"),
            **bounds(1.8, *RESNET50, *VIT_S),
        },
    ),
    Row(
        "INNAprop compiled",
        "AdamW fused",
        {
            **bounds(1.25, *RESNET50, *VIT_S, "gpt2", "one"),
            **bounds(1.5, "small"),
        },
    ),
    Row("INNAprop foreach", "AdamW foreach", bounds(1.0, *UNSHARDED)),
    Row("INNA", "SGD foreach", bounds(1.3, "fsdp2"), ("fsdp2",)),
    Row("INNA", "AdamW fused", bounds(0.85, *OLD), OLD),
    Row("INNA foreach", "AdamW foreach", bounds(0.5, *OLD), OLD),
    Row("INNA", "AdamW", bounds(0.35, *OLD), OLD),
    Row("INNA", "published INNA", bounds(0.25, "one"), ("one",)),
    Row("INNAprop", "AdamW foreach", bounds(0.8, *OLD), OLD),
    Row("INNAprop published_decay", "INNAprop", layouts=PUBLISHED),
    Row("INNAprop published_decay", "published INNAprop", layouts=PUBLISHED),
    Row("INNAprop published_decay compiled", "published INNAprop", layouts=PUBLISHED),
)

LOW_PRECISION_ROWS = (
    Row("INNA", "AdamW fused"),
    Row("INNA compiled", "AdamW fused"),
    Row("INNAprop", "AdamW fused"),
    Row("INNAprop compiled", "AdamW fused"),
)
"""For float16 and bfloat16. No targets: ours compensate the sums, torch's do not."""


def selected(layout: str, setting: Setting, text: str) -> list[Row]:
    """Return the rows of a layout and dtype whose name contains the text."""
    rows = LOW_PRECISION_ROWS if setting.dtype.itemsize < 4 else ROWS
    return [row for row in rows if layout in row.layouts and text in str(row)]
