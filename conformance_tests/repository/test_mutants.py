"""The mutants still apply: a change to the code must not leave one behind that breaks nothing."""

import pytest

pytest.importorskip("rich", reason="rich, which prints the progress of the mutants, is not installed")
from conformance_tests.mutants import MUTANTS, ROOT, Mutant

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    path = ROOT / mutant.file
    if not path.exists():
        pytest.skip("this is no checkout")
    assert path.read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert all((ROOT / "conformance_tests" / name).exists() for name in mutant.rows.where)
