"""Hold a hand-rolled optimizer against a reference, and name the cause of the difference."""

from nnjax.optcheck.candidate import Candidate, NotAnOptimizerError
from nnjax.optcheck.compare import assert_matches, compare, identify
from nnjax.optcheck.deadline import OverdueError
from nnjax.optcheck.report import Report

__all__ = ["Candidate", "NotAnOptimizerError", "OverdueError", "Report", "assert_matches", "compare", "identify"]
