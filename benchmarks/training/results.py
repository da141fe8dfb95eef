"""Results on disk: one small JSON file for each task, regime and optimizer, written whole or not at all."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "results" / "training"


class OtherProtocolError(Exception):
    """A file holds results of another protocol, which cannot be continued."""


@dataclass(frozen=True)
class Store:
    """A folder of results."""

    folder: Path = FOLDER

    def path(self, *names: str) -> Path:
        return self.folder / f"{'_'.join(names)}.json"

    def read(self, *names: str) -> dict[str, Any]:
        """Return what is stored under a name; an empty dict if nothing is."""
        path = self.path(*names)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def resume(self, protocol: Mapping[str, Any], *names: str) -> dict[str, Any]:
        """Return what is stored under a name, to continue it.

        Raises:
            OtherProtocolError: if it was made with another protocol.
        """
        stored = self.read(*names)
        before, now = (json.loads(text(part)) for part in (stored.get("protocol", protocol), protocol))  # as stored
        if stored and before != now:
            different = ", ".join(sorted(key for key in now | before if now.get(key) != before.get(key)))
            raise OtherProtocolError(
                f"{self.path(*names)} holds results of another protocol (different: {different}). "
                "Delete it, or give another --out."
            )
        return stored

    def write(self, result: Mapping[str, Any], *names: str) -> None:
        """Replace what is stored under a name; an interruption leaves the old or the new, never half."""
        path = self.path(*names)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".json.part")
        draft.write_text(text(result), encoding="utf-8")
        os.replace(draft, path)


def finished(study: Mapping[str, Any]) -> bool:
    """Return whether a study, as stored, has all its final runs."""
    return bool(study) and len(study["final"]) == len(study["protocol"]["seeds"])


def tuned_setting(store: Store, *names: str) -> dict[str, Any] | None:
    """Return the setting that was chosen in a study, or None if it has not been finished."""
    study = store.read(*names)
    return study["tuning"][study["winner"]]["setting"] if finished(study) else None


def final_loss(final: Mapping[str, Any]) -> float | None:
    """Return the validation loss at the end of a run, of the whole split; None if the run diverged."""
    return final.get("validation", final["evaluations"][-1]["validation"]) if final["finished"] else None


def text(result: Mapping[str, Any]) -> str:
    """Return JSON: a line for each trial or evaluation, five significant digits, and null for what is not finite."""
    return compact(rounded(result), 0) + "\n"


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: rounded(entry) for key, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def compact(value: Any, depth: int) -> str:
    """Return JSON whose innermost lists and dicts take one line each."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, list | dict) or len(line) + 2 * depth <= 140:
        return line
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + compact(entry, depth + 1) for entry in value) + f"\n{outer}]"
    entries = (f"{inner}{json.dumps(key)}: {compact(entry, depth + 1)}" for key, entry in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{outer}}}"
