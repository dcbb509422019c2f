"""The result of a comparison."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nnjax.optcheck.contract.violations import Violation
from nnjax.optcheck.rules.equations import equations
from nnjax.optcheck.search.causes import Cause, check_ids
from nnjax.optcheck.search.diagnosis import Diagnosis
from nnjax.optcheck.trace.observations import Pass
from nnjax.optcheck.trace.tolerance import Divergence
from nnjax.optcheck.trace.traces import Trace

SCHEMA = "nnjax-optcheck-2"


class Report(NamedTuple):
    """The result of `compare`. `str` gives the report as text."""

    candidate: str
    reference: str
    seconds: float
    violations: tuple[Violation, ...] = ()
    passes: tuple[Pass, ...] = ()  # one per dtype, and one with a schedule; () if nothing could be compared
    diagnosis: Diagnosis = Diagnosis()
    fixes: tuple[str, ...] = ()
    not_observed: tuple[str, ...] = ()
    traces: tuple[Trace, Trace] | None = None
    """Candidate and reference, in the pass in which they differ, or in the first: for `plot`."""

    @property
    def matches(self) -> bool:
        """True if all updates equal those of the reference, to rounding."""
        return bool(self.passes) and self.divergence is None

    @property
    def broken(self) -> bool:
        """True if the candidate violates the contract; notes are not violations."""
        return any(violation.severity == "violation" for violation in self.violations)

    @property
    def ok(self) -> bool:
        """True if the candidate matches and does not violate the contract."""
        return self.matches and not self.broken

    @property
    def divergence(self) -> Divergence | None:
        """The first difference above rounding, or None."""
        return next((part.divergence for part in self.passes if part.divergence is not None), None)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The differences between the candidate and the reference, from the first explanation if several tie."""
        explanations = self.diagnosis.explanations
        return explanations[0].causes if explanations else ()

    def allowed(self, causes: Sequence[str]) -> bool:
        """Return True if an explanation has only these causes, by their `id`."""
        check_ids(causes)
        explanations = (explanation.causes for explanation in self.diagnosis.explanations)
        return any(group and {cause.id for cause in group} <= set(causes) for group in explanations)

    @property
    def exit_code(self) -> int:
        """0: match. 1: difference with a cause. 2: difference without a cause. 3: violation of the contract."""
        if self.matches or not self.passes:
            return 3 if self.broken else 0
        return 1 if self.causes else 2

    def __str__(self) -> str:
        from nnjax.optcheck.report.text import report_text

        return report_text(self)

    def to_json(self) -> str:
        """Return all but the traces as JSON with the schema "nnjax-optcheck-2".

        candidate, reference: names;  ok: bool;  exit_code: 0 to 3;  divergence: the first difference, or null;
        causes, equations, proof: one entry per explanation, several if they tie;
        reference_equations: null if the formula of the reference is unknown;
        violations: of the contract;  passes: one per dtype, and one with a schedule;
        fixes, not_observed: lists of sentences;  impact, remark: a sentence;  complete: false if max_fits ended the
        search;  seconds: duration of the comparison.
        Numbers that are not finite are strings, "nan" and "inf".
        """
        diagnosis, explanations = self.diagnosis, self.diagnosis.explanations
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "candidate": self.candidate,
            "reference": self.reference,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "divergence": self.divergence and self.divergence._asdict(),
            "causes": [
                [cause._asdict() | {"id": cause.id} for cause in explanation.causes] for explanation in explanations
            ],
            "proof": [{"error": explanation.error, "runner_up": explanation.runner_up} for explanation in explanations],
            "equations": [equations(explanation.formula) for explanation in explanations],
            "reference_equations": None if diagnosis.reference is None else equations(diagnosis.reference),
            "violations": [violation._asdict() for violation in self.violations],
            "passes": [
                part._asdict() | {"divergence": part.divergence and part.divergence._asdict()} for part in self.passes
            ],
            "fixes": self.fixes,
            "impact": diagnosis.impact,
            "not_observed": self.not_observed,
            "remark": diagnosis.remark,
            "complete": diagnosis.complete,
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(_replace_non_finite(content), indent=2, ensure_ascii=False, allow_nan=False)

    def plot(self) -> Any:
        """Return a figure of both updates and of their relative difference, over steps and gradient magnitudes.

        Raises:
          ValueError: if there are no updates.
        """
        from nnjax.optcheck.report.picture import draw

        if self.traces is None:
            raise ValueError("optcheck: nothing to plot, because the candidate's updates cannot be compared")
        return draw(*self.traces)


def _replace_non_finite(content: Any) -> Any:
    """Replace numbers that JSON cannot represent by strings."""
    if isinstance(content, dict):
        return {key: _replace_non_finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_replace_non_finite(value) for value in content]
    if isinstance(content, float) and not np.isfinite(content):
        return str(content)
    return content
