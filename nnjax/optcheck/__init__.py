"""Compare a hand-written optimizer with a reference, and name the cause of any difference."""

from nnjax.optcheck._audit import Audit, audit
from nnjax.optcheck._compare import assert_matches, compare, identify
from nnjax.optcheck.calling.adapter import Adapter
from nnjax.optcheck.calling.kinds import NotAnOptimizerError
from nnjax.optcheck.report.report import Report
from nnjax.optcheck.trace.deadline import TimeLimitError

__all__ = [
    "Adapter",
    "Audit",
    "NotAnOptimizerError",
    "Report",
    "TimeLimitError",
    "assert_matches",
    "audit",
    "compare",
    "identify",
]
