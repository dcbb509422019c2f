"""What the README says was measured is what the results say."""

from pathlib import Path

import pytest

from benchmarks.harness.record import load
from benchmarks.harness.rounds import OTHER_WORK
from benchmarks.report import table
from benchmarks.report.regression import AGAIN

ROOT = Path(__file__).parent.parent
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*/results.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_results_are_of_a_known_state_and_everything_in_them_was_checked(path):
    machine, rows = load(path)
    assert machine["commit"]
    assert not machine["changed"]
    assert all(row.error <= 1 for row in rows if row.samples)
    assert not [row for row in rows if row.problem and row.problem.startswith(OTHER_WORK)]
    assert {row.peer for row in rows} >= {"ours", AGAIN}


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_the_tables_in_the_readme_are_those_of_the_results(path):
    machine, rows = load(path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table.taken_on(machine) in readme
    assert table.markdown(rows) in readme
