"""Run the benchmarks: choose the contenders for each variant, measure them, and build the rows."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.cases import load_case
from benchmarks.harness.record import AGAIN, LIMIT, OURS, Row
from benchmarks.harness.rounds import Measurement, Plan, keep_workers, measure_in_turn, start_workers, worker_pool
from benchmarks.harness.worker_process import Contender
from benchmarks.peers import peer_names, read_head

QUICK = Plan(rounds=5, seconds=0.05, parallel_setups=2)
FULL = Plan(rounds=7, seconds=0.05)
NAIVE = "naive"


class Choice(NamedTuple):
    """The cases, variants and peers to measure, and for how many rounds."""

    cases: Sequence[str]
    peers: Sequence[str] | None = None  # names of peer files; None means all installed peers
    quick: bool = False
    rounds: int | None = None  # number of rounds for all variants; None means the defaults of plan and cases
    thorough: bool = False  # measure all forms of all variants


def run_benchmarks(choice: Choice, show: Callable[[str], None]) -> Iterator[list[Row]]:
    """Measure all variants of the chosen cases.

    Args:
      choice: the cases, variants and peers to measure.
      show: function that displays a line of progress.

    Yields:
      The rows of each variant.
    """
    plan = QUICK if choice.quick else FULL
    variants = [
        (case, variant, choose_contenders(case, variant, choice))
        for case in choice.cases
        for variant in choose_variants(case, choice)
    ]
    with worker_pool() as workers:
        for i, (case, variant, contenders) in enumerate(variants):
            case_plan = plan._replace(variant_rounds=getattr(load_case(case), "ROUNDS", {}))
            if choice.rounds is not None:
                case_plan = plan._replace(rounds=choice.rounds)
            start_workers(workers, contenders)
            yield build_rows(case, variant, measure_in_turn(case, variant, contenders, workers, case_plan, show))
            keep_workers(workers, {later.process for _, _, others in variants[i + 1 :] for later in others})


def choose_variants(case_name: str, choice: Choice) -> tuple[str, ...]:
    """Return the names of the variants to measure."""
    case = load_case(case_name)
    if choice.quick:
        return tuple(case.QUICK)
    return tuple(name for name in case.JOBS if choice.thorough or name not in getattr(case, "EXTRA", ()))


def choose_contenders(case_name: str, variant: str, choice: Choice) -> list[Contender]:
    """Return the forms of the chosen, installed peers for this kind of work; one form of nnjax twice to measure noise.

    Unless `choice.thorough` is True, naive and rare forms are omitted in the quick set and for variants that the
    THOROUGH of the case does not contain. Forms that are slow to compile are always omitted in the quick set, but never
    in the full set, because they may be the peer's fastest.
    """
    case = load_case(case_name)
    thorough = choice.thorough or (not choice.quick and variant in getattr(case, "THOROUGH", case.JOBS))
    contenders = []
    for peer in map(read_head, peer_names()):
        takes_part = choice.peers is None or peer.file in (*choice.peers, LIMIT)
        left_out = (*(() if thorough else (NAIVE, *peer.rare)), *(peer.slow if choice.quick else ()))
        if takes_part and not peer.missing:
            forms = [form for form in peer.forms.get(case.KIND, ()) if form not in left_out]
            contenders += [Contender(peer.name, peer.file, form, form in peer.apart) for form in forms]
    nnjax_forms = [contender for contender in contenders if contender.peer == OURS and contender.form != NAIVE]
    return [*contenders, nnjax_forms[0]._replace(label=AGAIN)] if nnjax_forms else contenders


def build_rows(case: str, variant: str, measurements: Sequence[Measurement]) -> list[Row]:
    """Return the rows of a variant. All of them get the same operation count, byte count and limit."""
    limits = [median(m.samples) for m in measurements if m.contender.peer == LIMIT and m.samples]
    flops = max((m.setup.get("flops", 0) for m in measurements), default=0)
    bytes_ = max((m.setup.get("bytes", 0) for m in measurements), default=0)
    return [
        Row(
            case=case,
            variant=variant,
            peer=m.contender.label,
            form=m.contender.form,
            unit=load_case(case).UNIT,
            samples=m.samples,
            stages=m.setup.get("stages", {}),
            error=m.setup.get("check", 0.0),
            flops=flops,
            bytes=bytes_,
            limit=min(limits, default=None),
            memory=m.setup.get("memory", {}),
            figures=m.setup.get("figures", {}),
            problem=m.problem,
        )
        for m in measurements
    ]
