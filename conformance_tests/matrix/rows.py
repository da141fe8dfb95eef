"""Rows of the matrix as pytest takes them, each with its tier and with the worker that runs it.

What of the matrix the tiers hold:

fast: eager hosts in the widest dtype and one narrow one; all refusals on NumPy; the default cases on compiled hosts.
default: eager hosts in two dtypes, and with the default cases in the others; two refused values of each argument; the
    contracts of compiled hosts in one dtype.
nightly: all cases and dtypes on all hosts; all refused values on all hosts.
gpu: whatever needs a CUDA device.
"""

from typing import Any

import pytest

from conformance_tests.matrix.cases import Case, Refusal
from conformance_tests.matrix.hosts import Host
from conformance_tests.matrix.table import ALGORITHMS, BY_NAME

PROCESSES = "processes"
"""The group of all tests that have processes started; many compare backends, so one worker has them all."""

FULLEST = max(ALGORITHMS, key=lambda algorithm: len(algorithm.state))
"""The algorithm with the largest state: where each row is compiled anew, the others' rows are nightly."""

FULL_REFUSALS = "numpy"
"""The host on which the core refuses every value of every argument."""


def row(host: Host, *values: Any, id: str = "", tier: str = "default") -> Any:
    """Return a parameter set of a test that runs on a host.

    Args:
        host: where it runs; what needs a GPU is of that tier.
        values: of further parameters.
        id: of the set, behind the host's name.
        tier: "fast", "default" or "nightly".
    """
    tier = "gpu" if host.device == "cuda" else tier
    marks = [pytest.mark.xdist_group(group_of(host))]
    if tier != "default":
        marks.append(getattr(pytest.mark, tier))
    return pytest.param(host, *values, id="-".join(filter(None, [host.name, id])), marks=marks)


def group_of(host: Host) -> str:
    """Return the name of what one worker runs, so that a backend is started, and a compiler warmed up, once."""
    return PROCESSES if host.env else "-".join([*host.packages, *(["compiled"] if host.compiler else [])])


def tier_of_case(host: Host, case: Case, dtype: str) -> str:
    """Return the tier of a step of a case in a dtype against the oracle."""
    default = case == BY_NAME[case.algorithm].default
    if host.compiled:
        return "fast" if default and dtype == host.narrow else "nightly"
    if dtype in (host.wide, host.narrow):
        return "fast"
    return "default" if default else "nightly"


def tier_of_property(host: Host, dtype: str | None = None) -> str:
    """Return the tier of a property of a host other than its numbers."""
    if host.compiled:
        return "default" if dtype in (None, host.narrow) else "nightly"
    return "fast" if dtype in (None, host.wide) else "default"


def tier_of_dtype(host: Host, case: Case, dtype: str) -> str:
    """Return the tier of a property that each dtype and algorithm has: smaller states have it in fewer dtypes."""
    dtypes = () if host.compiled else (host.wide, host.narrow)
    return tier_of_property(host, dtype) if case == FULLEST.default or dtype in dtypes else "nightly"


def tier_of_refusal(host: Host, refusal: Refusal, refusals: tuple[Refusal, ...]) -> str:
    """Return the tier: on NumPy all values are fast, elsewhere one of each kind of error, and the rest are nightly."""
    if host.name == FULL_REFUSALS:
        return "fast"
    alike = (r for r in refusals if (r.argument, r.error) == (refusal.argument, refusal.error))
    return "default" if refusal == next(alike) and not host.compiled else "nightly"
