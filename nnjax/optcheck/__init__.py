"""Hold a hand-rolled optimizer against a reference, and name the cause of the difference."""

from nnjax.optcheck._compare import assert_matches, compare, identify
from nnjax.optcheck.report.report import Report
from nnjax.optcheck.trace.adapters import Candidate, NotAnOptimizerError
from nnjax.optcheck.trace.deadline import OverdueError

__all__ = ["Candidate", "NotAnOptimizerError", "OverdueError", "Report", "assert_matches", "compare", "identify"]
