"""Store the result of a comparison, and format it as text and JSON."""

import itertools
import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnjax.optcheck.contract.violations import Violation
from nnjax.optcheck.reading.difference import Line
from nnjax.optcheck.report.github import annotation
from nnjax.optcheck.rules.families import equations
from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.search.causes import Cause, check_ids
from nnjax.optcheck.search.diagnosis import Diagnosis, Explanation
from nnjax.optcheck.trace.gradient_script import STEPS
from nnjax.optcheck.trace.observations import Pass
from nnjax.optcheck.trace.tolerance import RELATIVE, TEXT, Divergence
from nnjax.optcheck.trace.traces import Trace

SCHEMA = "nnjax-optcheck-3"
MOST_SYNONYMS = 3  # equal formulas that are printed


class Report(NamedTuple):
    """The result of `compare`. `str` gives the report as text."""

    candidate: str
    reference: str
    seconds: float
    violations: tuple[Violation, ...] = ()
    passes: tuple[Pass, ...] = ()  # one per dtype, one with a schedule if possible; () if nothing could be compared
    diagnosis: Diagnosis = Diagnosis()
    fixes: tuple[str, ...] = ()
    not_observed: tuple[str, ...] = ()
    traces: tuple[Trace, Trace] | None = None
    """The traces of candidate and reference for `plot`, from a pass in which they differ if there is one."""

    called: str = ""
    """The call of the candidate, such as "optim(grads, params, state)"; "" if its kind determines the call."""

    @property
    def matches(self) -> bool:
        """Return True if updates were compared and equal the reference's updates up to rounding."""
        return bool(self.passes) and self.divergence is None

    @property
    def broken(self) -> bool:
        """Return True if the candidate violates the contract; notes are not violations."""
        return any(violation.severity == "violation" for violation in self.violations)

    @property
    def ok(self) -> bool:
        """Return True if the candidate matches and does not violate the contract."""
        return self.matches and not self.broken

    @property
    def divergence(self) -> Divergence | None:
        """Return the first difference above rounding, or None."""
        return next((part.divergence for part in self.passes if part.divergence is not None), None)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Return the differences between candidate and reference, by the first explanation if several tie.

        If no rule explains them, these are the equations that differ, if they could be read from what the candidate
        stores.
        """
        return self.diagnosis.causes

    def allowed(self, causes: Sequence[str]) -> bool:
        """Return True if all causes of some explanation are among these `id`s; False if there is no cause.

        Raises:
          ValueError: if an id is unknown.
        """
        check_ids(causes)
        explanations = [
            group
            for explanation in self.diagnosis.explanations
            for group in (explanation.causes, *explanation.synonyms)
        ] or [self.causes]
        return any(group and {cause.id for cause in group} <= set(causes) for group in explanations)

    @property
    def exit_code(self) -> int:
        """Return 0 for a match, 1 or 2 for a difference with or without a cause, 3 for a violation alone."""
        if self.matches or not self.passes:
            return 3 if self.broken else 0
        return 1 if self.causes else 2

    def __str__(self) -> str:
        return _text(self)

    def to_json(self) -> str:
        """Return everything except the traces as JSON that follows the JSON Schema in `report/schema.json`."""
        diagnosis, explanations = self.diagnosis, self.diagnosis.explanations
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "candidate": self.candidate,
            "reference": self.reference,
            "called": self.called,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "divergence": self.divergence and self.divergence._asdict(),
            "causes": [
                [cause._asdict() | {"id": cause.id} for cause in causes]
                for causes in [explanation.causes for explanation in explanations] or [self.causes]
                if causes or explanations
            ],
            "proof": [{"error": explanation.error, "runner_up": explanation.runner_up} for explanation in explanations],
            "equations": [equations(explanation.formula) for explanation in explanations],
            "lines": [line._asdict() for line in diagnosis.lines],
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
            "levels": [level._asdict() for level in diagnosis.levels],
            "synonyms": [
                [[cause.id for cause in group] for group in explanation.synonyms] for explanation in explanations
            ],
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(_replace_non_finite(content), indent=2, ensure_ascii=False, allow_nan=False)

    def github(self, file: str = "", line: int = 1) -> str:
        """Return the result as a GitHub Actions annotation for a line of a file, or "" if `ok` is True.

        Args:
          file: the path of the file with the candidate.
          line: the line at which the candidate is defined.
        """
        if self.ok:
            return ""
        return annotation("error", file, line, str(self))

    def plot(self) -> Any:
        """Return a figure of the updates of both optimizers over the steps, and of their relative difference.

        Raises:
          ValueError: if there are no updates.
        """
        from nnjax.optcheck.report.picture import draw

        if self.traces is None:
            raise ValueError("optcheck: nothing to plot, because the candidate's updates cannot be compared")
        causes = "; ".join(f"{cause.candidate} (the reference: {cause.reference})" for cause in self.causes)
        return draw(*self.traces, headline=_verdict(self), context=causes)


def _text(report: Report) -> str:
    """Return the report as text: verdict, first difference, causes with both formulas, fixes, limits."""
    diagnosis = report.diagnosis
    deduced = "; pass init= if it starts differently" if "; the state starts as" in report.called else ""
    lines = [_verdict(report), *([f"  called as {report.called}{deduced}"] if report.called else [])]
    lines += [
        f"  {'contract' if violation.severity == 'violation' else 'note'}: {violation}"
        for violation in report.violations
    ]
    lines += _divergence(report)
    for number, explanation in enumerate(diagnosis.explanations):
        lines += ["", *_explanation(explanation, diagnosis.reference, "or " if number else "")]
    if report.divergence is not None:
        lines += ["", *_read_equations(diagnosis)] if diagnosis.lines else []
        lines += [] if report.causes else ["", *_unknown(diagnosis)]
        lines += ["", f"impact: {diagnosis.impact}"] if diagnosis.impact else []
        lines += [f"fix: {fix}" for fix in report.fixes]
    if report.not_observed:
        lines += ["", "not observed with these inputs: " + "; ".join(report.not_observed)]
    if report.passes:
        dtype = "float64" if any(part.dtype == "float64" for part in report.passes) else "float32"
        lines += ["", TEXT.format(r=RELATIVE[dtype], dtype=dtype)]
        lines += [(f"{diagnosis.remark}; " if diagnosis.remark else "") + f"{report.seconds:.1f} s"]
    return "\n".join(lines)


def _verdict(report: Report) -> str:
    names = f"{report.candidate} against {report.reference}"
    if report.matches:
        passes = ", ".join(part.name for part in report.passes)
        suffix = ", but the candidate breaks the contract" if report.broken else ""
        return f"MATCH: {names}: updates equal up to rounding ({passes}){suffix}"
    if not report.passes:
        return f"BREAKS THE CONTRACT: {names}: nothing to compare"
    if not report.causes:
        return f"DIFFERENT, cause unknown: {names}"
    count = len(report.diagnosis.explanations)
    return f"DIFFERENT: {names}" + (f", {count} explanations that fit these inputs equally" if count > 1 else "")


def _divergence(report: Report) -> list[str]:
    """Describe the first difference, and the passes and gradient magnitudes at which updates differ."""
    first = report.divergence
    if first is None:
        return []
    place = f"{first.leaf}{list(first.place) if first.place else ''}"
    got, reference = different_texts(first.candidate, first.reference)
    lines = [
        "",
        f"first difference at step {first.step}, {place}: got {got}, reference {reference}, "
        f"{first.ratio:.2g} × the tolerance; gradient {first.gradient:.3g} ({first.pattern}), "
        f"parameter {first.parameter:.3g}",
    ]
    for part in report.passes:
        leaves = f", in {', '.join(part.leaves)}" if part.leaves else ""
        where = "no difference" if part.divergence is None else f"differs {_magnitudes(part.share)}{leaves}"
        lines.append(f"  {part.name}: {where}")
    return lines


def different_texts(a: float, b: float) -> tuple[str, str]:
    """Format two numbers with enough digits to show that they differ; -0 is printed as 0."""
    a, b = a + 0.0, b + 0.0
    texts = [(f"{a:.{digits}g}", f"{b:.{digits}g}") for digits in (9, 13, 17)]
    return next((pair for pair in texts if pair[0] != pair[1]), texts[-1])


def _magnitudes(share: dict[str, float]) -> str:
    """Describe the gradient magnitudes at which updates differ."""
    names = list(share)
    wrong = [name for name in names if share[name] > 0]
    if len(wrong) == len(names):
        return "at all gradient magnitudes"
    return f"at gradients of {_ranges(wrong, names)}; not at {_ranges(set(names) - set(wrong), names)}"


def _ranges(selected: Collection[str], names: Sequence[str]) -> str:
    """List the selected names, with consecutive names as a range, such as "1e-14 to 1e-06, 1e-03"."""
    runs = [list(run) for is_selected, run in itertools.groupby(names, lambda name: name in selected) if is_selected]
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _explanation(explanation: Explanation, reference: Formula | None, prefix: str) -> list[str]:
    """Return lines with the causes, both formulas side by side, and the proof."""
    library = f" ({explanation.library})" if explanation.library else ""
    title = (
        f"cause{library}"
        if explanation.causes
        else f"formula of the candidate{library}; that of the reference is unknown"
    )
    lines = [f"{prefix}{title}:"]
    for cause in explanation.causes:
        leaves = "" if cause.leaves is None else f" in {', '.join(cause.leaves)}"
        lines.append(f"  - {cause.candidate}{leaves}; the reference: {cause.reference}  [{cause.id}]")
    groups = [group for group in explanation.synonyms if group]
    for group in groups[:MOST_SYNONYMS]:
        lines.append("  - the same as: " + "; ".join(f"{cause.candidate}  [{cause.id}]" for cause in group))
    if len(groups) > MOST_SYNONYMS:
        lines.append(f"  - and {len(groups) - MOST_SYNONYMS} more equal formulas")
    left = ["candidate", *equations(explanation.formula)]
    right = ["reference", *(["unknown"] if reference is None else equations(reference))]
    width = max(map(len, left))
    rows = itertools.zip_longest(left, right, fillvalue="")
    lines += [f"    {a:<{width}}   {b}".rstrip() for a, b in rows]
    where = " in these leaves" if any(cause.leaves for cause in explanation.causes) else ""
    runner_up = f"; {explanation.runner_up}" if explanation.runner_up else ""
    proof = (
        f"this formula reproduces all updates of the candidate{where} to a relative error of {explanation.error:.1g}"
    )
    return [*lines, f"  proof: {proof}{runner_up}"]


def _read_equations(diagnosis: Diagnosis) -> list[str]:
    """Return lines with the equations that were read, of the candidate and of the reference."""
    lines, known = diagnosis.lines, bool(diagnosis.causes)
    source = "its updates and the arrays that it stores"
    text = [f"cause: no known rule, but all equations of the candidate follow from {source}:"] if known else [
        f"some equations follow from {source}; the others could not be read:"
    ]  # fmt: skip
    text += [f"  - {cause.candidate}; the reference: {cause.reference}  [{cause.id}]" for cause in diagnosis.causes]
    left = ["candidate", *(f"{line.name} ← {line.candidate}" for line in lines)]
    right = ["reference", *(f"{line.name} ← {line.reference}" for line in lines)]
    marks = ["", *map(_mark, lines)]
    width = max(map(len, left))
    text += [f"    {a:<{width}}   {b}{mark}".rstrip() for a, b, mark in zip(left, right, marks, strict=True)]
    text += [f"  {line.remark}" for line in lines if line.remark]
    texts = " ".join(f"{line.candidate} {line.reference}" for line in lines)
    text += ["  u: the update, including the learning rate"] if {"u", "u²", "|u|"} & set(texts.split()) else []
    return [*text, "  proof: they hold for all finite elements of a leaf, at all steps of two scripts"]


def _mark(line: Line) -> str:
    """Return a mark for an equation that both optimizers have, and the array that the candidate stores instead."""
    same = "" if line.differs else "the same"
    if line.factor == 1:
        return f"   ({same})" if same else ""
    stored = f"the candidate stores {line.factor:.6g} {line.array}"
    return f"   ({same}, up to a constant factor: {stored})" if same else f"   ({stored})"


def _unknown(diagnosis: Diagnosis) -> list[str]:
    """Return lines with the number of rules tried at each level, and what was not tried."""
    if diagnosis.remark.startswith("all updates"):  # no rule was tried
        return [f"cause: {diagnosis.remark}"]
    if diagnosis.explanations:  # causes need the rule of the reference
        return ["cause: unknown, because the rule of the reference is unknown; the rule of the candidate is above"]
    if not diagnosis.levels:
        return ["cause: unknown; the rule of the reference is unknown, and no equation that was read differs"]
    forms: dict[str, int] = {}
    for level in diagnosis.levels:
        forms[level.name] = forms.get(level.name, 0) + level.forms
    lines = [f"cause: unknown; none of the {sum(forms.values()):,} rules tried reproduces these updates"]
    if diagnosis.reference is None and not diagnosis.causes:
        lines.append("  the rule of the reference is unknown, too, so causes relative to it cannot be named")
    if diagnosis.refuted:
        lines[0] += f" on other gradients; {diagnosis.refuted} of them reproduced the first {STEPS} steps only"
    lines += [f"  {count:>6,}  {name}" for name, count in forms.items() if count]
    unfinished = [level.name for level in diagnosis.levels if not level.complete]
    if not diagnosis.complete:
        rest = f"the rest of {unfinished[0]!r}" if unfinished else "further levels"
        lines.append(f"  the limit max_fits= ended the search; not tried: {rest}, and rules with three other choices")
    else:
        lines.append("  all rules with up to two other choices were tried, and the closest with three")
    return lines


def _replace_non_finite(content: Any) -> Any:
    """Replace non-finite numbers with strings, because JSON cannot represent them."""
    if isinstance(content, dict):
        return {key: _replace_non_finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_replace_non_finite(value) for value in content]
    if isinstance(content, float) and not np.isfinite(content):
        return str(content)
    return content
