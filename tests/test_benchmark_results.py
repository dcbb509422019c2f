"""The committed results of the benchmarks, and the tables that benchmarks/README.md shows of them."""

from pathlib import Path

import pytest

from benchmarks.harness.record import AGAIN, load_record
from benchmarks.report.document import markdown_report, replace_section

ROOT = Path(__file__).parent.parent
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*/results.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_results_are_of_a_commit_and_everything_in_them_was_checked(path):
    machine, rows = load_record(path)
    assert machine["commit"]
    assert not machine["changed"]
    assert all(row.error <= 1 for row in rows if row.samples)
    assert not [row for row in rows if row.problem and row.error > 1]
    assert {row.peer for row in rows} >= {"ours", AGAIN}


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_the_readme_shows_these_results(path):
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    section = markdown_report(load_record(path))
    assert section in readme
    assert replace_section(readme, path.parent.name, section) == readme
