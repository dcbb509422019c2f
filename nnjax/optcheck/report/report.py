"""What a comparison found, for a person and for a program."""

import itertools
import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnjax.optcheck.contract.violations import Breach
from nnjax.optcheck.rules.equations import equations
from nnjax.optcheck.rules.library_rules import Named
from nnjax.optcheck.search.causes import Cause, check_ids
from nnjax.optcheck.search.diagnosis import Answer
from nnjax.optcheck.trace.observations import Pass
from nnjax.optcheck.trace.traces import RELATIVE, RULE, Divergence, Trace

SCHEMA = "nnjax-optcheck-1"


class Report(NamedTuple):
    """What `compare` returns."""

    candidate: str
    reference: str
    breaches: tuple[Breach, ...]
    passes: tuple[Pass, ...]
    reference_form: Named | None
    answers: tuple[Answer, ...]  # several are a tie; none where the cause is unknown
    searched: str  # "1,962 forms in 4.1 s, up to two choices at a time"
    fixes: tuple[str, ...]
    impact: str
    not_observed: tuple[str, ...]
    seconds: float
    traces: tuple[Trace, Trace] | None
    """Both, of the pass in which they differ, or of the first: for `plot`."""

    @property
    def matches(self) -> bool:
        """Whether all updates are those of the reference, to rounding."""
        return bool(self.passes) and all(each.first is None for each in self.passes)

    @property
    def broken(self) -> bool:
        """Whether the contract is broken; notes do not break it."""
        return any(breach.severity == "breach" for breach in self.breaches)

    @property
    def ok(self) -> bool:
        """Whether they match and the contract is kept."""
        return self.matches and not self.broken

    @property
    def first(self) -> Divergence | None:
        """The first difference that is no rounding."""
        return next((each.first for each in self.passes if each.first is not None), None)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What the candidate does otherwise; of a tie the first."""
        return self.answers[0].causes if self.answers else ()

    def allowed(self, causes: Sequence[str]) -> bool:
        """Whether the difference is explained by causes that may be."""
        check_ids(causes)
        return any(answer.causes and {cause.id for cause in answer.causes} <= set(causes) for answer in self.answers)

    @property
    def exit_code(self) -> int:
        """0 match, 1 differs with a cause, 2 differs without one, 3 breaks the contract."""
        if self.matches or not self.passes:
            return 3 if self.broken else 0
        return 1 if self.causes else 2

    def __str__(self) -> str:
        return "\n".join(_text(self))

    def to_json(self) -> str:
        """All but the traces, as JSON of the schema "nnjax-optcheck-1".

        candidate, reference: names;  ok: bool;  exit_code: 0 … 3;  first: the divergence, or null;
        causes, equations, proof: a list for each explanation, of which several may fit equally;
        reference_equations: or null, where its form is unknown;
        breaches: of the contract;  passes: for each dtype, and for the schedule;  fixes, not_observed: sentences;
        impact, searched: a sentence;  seconds: taken. Numbers that are not finite are strings, "nan" and "inf".
        """
        first = self.first
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "candidate": self.candidate,
            "reference": self.reference,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "first": None if first is None else first._asdict(),
            "causes": [[cause._asdict() | {"id": cause.id} for cause in answer.causes] for answer in self.answers],
            "proof": [{"error": answer.error, "next_best": answer.next_best} for answer in self.answers],
            "equations": [equations(answer.form, answer.hyper) for answer in self.answers],
            "reference_equations": None if self.reference_form is None else equations(*self.reference_form),
            "breaches": [breach._asdict() for breach in self.breaches],
            "passes": [each._asdict() | {"first": each.first and each.first._asdict()} for each in self.passes],
            "fixes": self.fixes,
            "impact": self.impact,
            "not_observed": self.not_observed,
            "searched": self.searched,
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)

    def plot(self) -> Any:
        """Both updates and their relative difference, over steps and over the gradients' magnitudes: a figure."""
        from nnjax.optcheck.report.picture import draw

        if self.traces is None:
            raise ValueError("optcheck: nothing to plot, for the candidate's steps returned nothing to compare")
        return draw(*self.traces)


def _text(report: Report) -> list[str]:
    lines = [_verdict(report)]
    lines += [f"  {'contract' if breach.severity == 'breach' else 'note'}: {breach}" for breach in report.breaches]
    if (first := report.first) is not None:
        lines += ["", *_where(report, first)]
    for number, answer in enumerate(report.answers):
        lines += ["", *_answer(report, answer, number)]
    if report.first is not None:
        lines += _unknown(report) if not report.answers else []
        lines += ["", f"impact: {report.impact}"] if report.impact else []
        lines += [f"fix: {fix}" for fix in report.fixes]
    if report.not_observed:
        lines += ["", "not observed with these inputs: " + "; ".join(report.not_observed)]
    if not report.passes:
        return lines
    dtypes = {each.dtype for each in report.passes}
    lines += ["", RULE.format(r=RELATIVE["float64" if "float64" in dtypes else "float32"])]
    return [*lines, f"{report.searched}; {report.seconds:.1f} s" if report.searched else f"{report.seconds:.1f} s"]


def _verdict(report: Report) -> str:
    both = f"{report.candidate} against {report.reference}"
    if report.matches:
        passes = ", ".join(each.name for each in report.passes)
        kept = "" if not report.broken else ", but breaks the contract"
        return f"MATCH: {both}: the same updates to rounding ({passes}){kept}"
    if not report.passes:
        return f"BREAKS THE CONTRACT: {both}: nothing to compare"
    if not report.causes:
        return f"DIFFERENT, cause unknown: {both}"
    several = len(report.answers)
    return f"DIFFERENT: {both}" + (
        f", {several} explanations that these inputs cannot tell apart" if several > 1 else ""
    )


def _where(report: Report, first: Divergence) -> list[str]:
    place = f"{first.leaf}{list(first.place) if first.place else ''}"
    lines = [
        f"first at step {first.step}, {place}: {first.candidate:.9g} where the reference has {first.reference:.9g}, "
        f"{first.times:.2g} × what rounding can make; gradient {first.gradient:.3g} ({first.pattern}), "
        f"parameter {first.params:.3g}"
    ]
    for each in report.passes:
        if each.first is None:
            lines.append(f"  {each.name}: no difference")
            continue
        lines.append(f"  {each.name}: shows {_magnitudes(each.wrong)}{_named('in', each.leaves)}")
    return lines


def _magnitudes(wrong: dict[str, float]) -> str:
    """For gradients of which size it shows."""
    shows = [name for name, share in wrong.items() if share > 0]
    if len(shows) == len(wrong):
        return "at all sizes of gradients"
    return f"at gradients of {_ranges(shows, list(wrong))}; not at {_ranges(set(wrong) - set(shows), list(wrong))}"


def _ranges(some: Collection[str], ordered: Sequence[str]) -> str:
    """Those that follow one another as one: "1e-14 to 1e-06, 1e-03"."""
    runs = [list(run) for there, run in itertools.groupby(ordered, lambda name: name in some) if there]
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _named(word: str, leaves: tuple[str, ...]) -> str:
    return f", {word} {', '.join(leaves)}" if leaves else ""


def _answer(report: Report, answer: Answer, number: int) -> list[str]:
    again = "" if number == 0 else "or "
    near = f" (as {answer.near})" if answer.near else ""
    lines = [f"{again}cause{near}:" if answer.causes else f"{again}the candidate is known{near}, the reference is not:"]
    for cause in answer.causes:
        leaves = "" if cause.leaves is None else f" in {', '.join(cause.leaves)}"
        lines.append(f"  - {cause.candidate}{leaves}; the reference: {cause.reference}  [{cause.id}]")
    left = equations(answer.form, answer.hyper)
    right = ["unknown"] if report.reference_form is None else equations(*report.reference_form)
    width = max(map(len, left))
    rows = max(len(left), len(right))
    left, right = left + [""] * (rows - len(left)), right + [""] * (rows - len(right))
    lines += [f"    {'candidate':<{width}}   reference"]
    lines += [f"    {a:<{width}}   {b}".rstrip() for a, b in zip(left, right, strict=True)]
    following = f"; the next best {answer.next_best}" if answer.next_best else ""
    there = " there" if any(cause.leaves for cause in answer.causes) else ""
    lines.append(f"  proof: this formula makes all of the candidate's updates{there} to {answer.error:.1g}{following}")
    return lines


def _unknown(report: Report) -> list[str]:
    if report.searched.startswith("all updates"):
        return ["", f"cause: {report.searched}"]
    return ["", "cause: unknown; no form that is known makes these updates, nor one that is two choices from one"]


def _finite(content: Any) -> Any:
    """Numbers that JSON has no word for as text."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not np.isfinite(content):
        return str(content)
    return content
