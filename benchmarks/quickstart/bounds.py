"""What a host must keep to, and who did not."""

import numpy as np

from benchmarks.quickstart.processes import Trajectory

DEVIATION = 1e-9
ACCURACY = 0.95


def deviations(trajectory: Trajectory, reference: Trajectory) -> np.ndarray:
    """Return max|theta - theta_ref| / max|theta_ref| at each recorded step."""
    difference = np.max(np.abs(trajectory.weights - reference.weights), axis=1)
    return difference / np.max(np.abs(reference.weights), axis=1)


def violations(trajectory: Trajectory, reference: Trajectory) -> list[str]:
    """Return one line for each bound that a host left.

    Args:
        trajectory: of the host.
        reference: of NumPy, whose accuracy the host must share.
    """
    largest = np.max(deviations(trajectory, reference))
    accuracy = trajectory.accuracy
    # "not below" and not "above", so that a NaN is a violation
    kept = {
        f"deviation {largest:.1e} from {reference.host} (bound: below {DEVIATION:.0e})": largest < DEVIATION,
        f"test accuracy {accuracy:.2%} (bound: at least {ACCURACY:.0%})": accuracy >= ACCURACY,
        f"test accuracy {accuracy:.2%} (bound: {reference.host}'s {reference.accuracy:.2%})": (
            accuracy == reference.accuracy
        ),
    }
    return [f"{trajectory.host}: {line}" for line, is_kept in kept.items() if not is_kept]
