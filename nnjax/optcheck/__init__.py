"""Compare a hand-written optimizer with a reference, and name the cause of any difference."""

from nnjax.optcheck._compare import assert_matches, compare, identify
from nnjax.optcheck.report.report import Report
from nnjax.optcheck.trace.adapters import Adapter
from nnjax.optcheck.trace.deadline import TimeLimitError
from nnjax.optcheck.trace.kinds import NotAnOptimizerError

__all__ = ["Adapter", "NotAnOptimizerError", "Report", "TimeLimitError", "assert_matches", "compare", "identify"]
