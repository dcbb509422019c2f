"""A report as text."""

import itertools
from collections.abc import Collection, Sequence

from nnjax.optcheck.report.report import Report
from nnjax.optcheck.rules.equations import equations
from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.search.diagnosis import Diagnosis, Explanation
from nnjax.optcheck.trace import tolerance


def report_text(report: Report) -> str:
    """Return the report as text: verdict, first difference, causes with both formulas, fixes, limits."""
    diagnosis = report.diagnosis
    lines = [_verdict(report)]
    lines += [
        f"  {'contract' if violation.severity == 'violation' else 'note'}: {violation}"
        for violation in report.violations
    ]
    lines += _divergence(report)
    for number, explanation in enumerate(diagnosis.explanations):
        lines += ["", *_explanation(explanation, diagnosis.reference, "or " if number else "")]
    if report.divergence is not None:
        lines += [] if diagnosis.explanations else ["", _unknown(diagnosis)]
        lines += ["", f"impact: {diagnosis.impact}"] if diagnosis.impact else []
        lines += [f"fix: {fix}" for fix in report.fixes]
    if report.not_observed:
        lines += ["", "not observed with these inputs: " + "; ".join(report.not_observed)]
    if report.passes:
        dtype = "float64" if any(part.dtype == "float64" for part in report.passes) else "float32"
        lines += ["", tolerance.TEXT.format(r=tolerance.RELATIVE[dtype], dtype=dtype)]
        lines += [(f"{diagnosis.remark}; " if diagnosis.remark else "") + f"{report.seconds:.1f} s"]
    return "\n".join(lines)


def _verdict(report: Report) -> str:
    names = f"{report.candidate} against {report.reference}"
    if report.matches:
        passes = ", ".join(part.name for part in report.passes)
        suffix = ", but the candidate breaks the contract" if report.broken else ""
        return f"MATCH: {names}: equal updates to rounding ({passes}){suffix}"
    if not report.passes:
        return f"BREAKS THE CONTRACT: {names}: nothing to compare"
    if not report.causes:
        return f"DIFFERENT, cause unknown: {names}"
    count = len(report.diagnosis.explanations)
    return f"DIFFERENT: {names}" + (f", {count} explanations that fit these inputs equally" if count > 1 else "")


def _divergence(report: Report) -> list[str]:
    """Return where the first difference is, and in which passes and gradients differences show."""
    first = report.divergence
    if first is None:
        return []
    place = f"{first.leaf}{list(first.place) if first.place else ''}"
    lines = [
        "",
        f"first difference at step {first.step}, {place}: got {first.candidate:.9g}, reference {first.reference:.9g}, "
        f"{first.ratio:.2g} × the tolerance; gradient {first.gradient:.3g} ({first.pattern}), "
        f"parameter {first.parameter:.3g}",
    ]
    for part in report.passes:
        leaves = f", in {', '.join(part.leaves)}" if part.leaves else ""
        where = "no difference" if part.divergence is None else f"differs {_magnitudes(part.share)}{leaves}"
        lines.append(f"  {part.name}: {where}")
    return lines


def _magnitudes(share: dict[str, float]) -> str:
    """Return the gradient magnitudes at which updates differ."""
    names = list(share)
    wrong = [name for name in names if share[name] > 0]
    if len(wrong) == len(names):
        return "at all gradient magnitudes"
    return f"at gradients of {_ranges(wrong, names)}; not at {_ranges(set(names) - set(wrong), names)}"


def _ranges(selected: Collection[str], names: Sequence[str]) -> str:
    """Return the selected names with consecutive ones as a range: "1e-14 to 1e-06, 1e-03"."""
    runs = [list(run) for is_selected, run in itertools.groupby(names, lambda name: name in selected) if is_selected]
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _explanation(explanation: Explanation, reference: Formula | None, prefix: str) -> list[str]:
    """Return the causes, both formulas side by side, and the proof."""
    library = f" ({explanation.library})" if explanation.library else ""
    title = f"cause{library}" if explanation.causes else f"the candidate is known{library}, the reference is not"
    lines = [f"{prefix}{title}:"]
    for cause in explanation.causes:
        leaves = "" if cause.leaves is None else f" in {', '.join(cause.leaves)}"
        lines.append(f"  - {cause.candidate}{leaves}; the reference: {cause.reference}  [{cause.id}]")
    left = ["candidate", *equations(explanation.formula)]
    right = ["reference", *(["unknown"] if reference is None else equations(reference))]
    width = max(map(len, left))
    rows = itertools.zip_longest(left, right, fillvalue="")
    lines += [f"    {a:<{width}}   {b}".rstrip() for a, b in rows]
    where = " in these leaves" if any(cause.leaves for cause in explanation.causes) else ""
    runner_up = f"; {explanation.runner_up}" if explanation.runner_up else ""
    proof = f"this formula reproduces all updates of the candidate{where} to {explanation.error:.1g}"
    return [*lines, f"  proof: {proof}{runner_up}"]


def _unknown(diagnosis: Diagnosis) -> str:
    if diagnosis.remark.startswith("all updates"):
        return f"cause: {diagnosis.remark}"
    if not diagnosis.complete:
        return "cause: unknown; no rule tried reproduces these updates; a larger max_fits= tries more"
    return "cause: unknown; no known rule, and none within two choices of one, reproduces these updates"
