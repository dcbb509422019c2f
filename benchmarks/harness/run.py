"""A whole run of the benchmarks: which peers stand for which case, and what is kept of what they did."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from benchmarks import cases, peers
from benchmarks.harness.record import Row
from benchmarks.harness.rounds import Contender, Measured, Plan, measure
from benchmarks.report.regression import AGAIN
from benchmarks.report.stats import summary

QUICK = Plan(rounds=5, seconds=0.05, together=2)
FULL = Plan(rounds=7, seconds=0.05)
LIMIT = "limit"  # the file that is no peer
NAIVE = "naive"


class Choice(NamedTuple):
    """What to measure."""

    cases: Sequence[str]
    peers: Sequence[str] | None = None  # files; None for all that are installed
    quick: bool = False
    rounds: int | None = None  # other than the plan's, for long variants too
    thorough: bool = False  # all variants, and all forms at each of them


def run(choice: Choice, tell: Callable[[str], None]) -> Iterator[tuple[str, list[Row]]]:
    """Each variant of each case with its rows.

    Args:
      choice: of cases and peers.
      tell: is told what is going on.
    """
    plan = QUICK if choice.quick else FULL
    for name in choice.cases:
        who = {variant: contenders(name, variant, choice) for variant in variants(name, choice)}
        this = plan._replace(own=getattr(cases.case(name), "ROUNDS", {}))
        if choice.rounds is not None:
            this = plan._replace(rounds=choice.rounds)
        for variant, measured in measure(name, who, this, tell):
            yield f"{name}, {variant}", rows(name, variant, measured)


def variants(case: str, choice: Choice) -> tuple[str, ...]:
    """Those of a case, by name."""
    this = cases.case(case)
    if choice.quick:
        return tuple(this.QUICK)
    return tuple(name for name in this.JOBS if choice.thorough or name not in getattr(this, "EXTRA", ()))


def contenders(case: str, variant: str, choice: Choice) -> list[Contender]:
    """The peers that do such work, in their forms; ours twice, for the noise.

    Naive and rare forms are left out of the quick set and where the case says so; those that take long to compile, of
    the quick set only: they may be a peer's fastest.
    """
    this = cases.case(case)
    thorough = choice.thorough or (not choice.quick and variant in getattr(this, "THOROUGH", this.JOBS))
    found = []
    for peer in map(peers.about, peers.names()):
        wanted = choice.peers is None or peer.file in (*choice.peers, LIMIT)
        left_out = (*(() if thorough else (NAIVE, *peer.rare)), *(peer.slow if choice.quick else ()))
        if wanted and not peer.missing:
            forms = [form for form in peer.forms.get(this.KIND, ()) if form not in left_out]
            found += [Contender(peer.name, peer.file, form) for form in forms]
    ours = [who for who in found if who.peer == "ours" and who.form != NAIVE]
    return [*found, ours[0]._replace(label=AGAIN)] if ours else found


def rows(case: str, variant: str, measured: Sequence[Measured]) -> list[Row]:
    """What is kept of a variant; one peer's operations and the limit hold for all of them."""
    limits = [summary(each.samples).median for each in measured if each.contender.peer == LIMIT and each.samples]
    flops = max((each.about.get("flops", 0) for each in measured), default=0)
    bytes_ = max((each.about.get("bytes", 0) for each in measured), default=0)
    return [
        Row(
            case=case,
            variant=variant,
            peer=each.contender.label,
            form=each.contender.form,
            unit=cases.case(case).UNIT,
            samples=each.samples,
            stages=each.about.get("stages", {}),
            error=each.about.get("check", 0.0),
            flops=flops,
            bytes=bytes_,
            limit=min(limits, default=None),
            memory=each.about.get("memory", {}),
            figures=each.about.get("figures", {}),
            problem=each.problem,
        )
        for each in measured
    ]
