"""A run of the benchmarks: who takes part, what is kept, what is shown."""

import re

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import cases, peers
from benchmarks.__main__ import app
from benchmarks.harness import rounds
from benchmarks.harness.record import Record, Row, load, save
from benchmarks.harness.rounds import Contender, Measured, Plan, _variant, measure
from benchmarks.harness.run import NAIVE, Choice, contenders, rows
from benchmarks.harness.worker import Running
from benchmarks.harness.worker import run as turn
from benchmarks.jobs.definitions import Calibrating, Program
from benchmarks.peers import limit
from benchmarks.report import pictures, table
from benchmarks.report.bottleneck import binds, rates
from benchmarks.report.datasheet import peaks
from benchmarks.report.regression import AGAIN, compare
from benchmarks.report.stats import geometric_mean, ratio

SMALL = "64-32-10, batch 32"
OURS, PLAIN, LIMIT = Contender("ours", "ours", "fast"), Contender("plain JAX", "plain_jax", "fast"), "limit"


def times(median, seed=0, n=11):
    return tuple(median * np.random.default_rng(seed).lognormal(0, 0.02, n))


def row(peer="ours", form="fast", samples=times(1e-3), case="small", variant="64-32-10", **more):
    figures = {"limit": 5e-4, "flops": 10**6, "bytes": 10**5, "problem": None, "stages": {"compile": 0.5}, **more}
    fields = {"unit": "step", "error": 0.1, "memory": {}, "figures": {}} | figures
    return Row(case=case, variant=variant, peer=peer, form=form, samples=samples, **fields)


class Answers:
    """A worker that knows its answers."""

    def __init__(self, contender, about, seconds=1e-3):
        self.contender, self.about, self.seconds, self.asked = contender, about, seconds, []

    def ask(self, request):
        self.asked.append(request)
        return self.about if "set up" in request else {"seconds": self.seconds, "figures": {}}


def test_every_case_is_done_by_somebody_and_its_quick_variants_are_there():
    done = {kind for name in peers.names() for kind in peers.about(name).forms}
    for name in cases.names():
        case = cases.case(name)
        assert case.KIND in done, name
        assert all({*getattr(case, part, ())} <= {*case.JOBS} for part in ("QUICK", "THOROUGH", "ROUNDS", "EXTRA")), (
            name
        )
        assert case.__doc__, name
        assert case.UNIT, name


def test_the_head_of_a_peer_says_what_its_file_does():
    for name in peers.names():
        about = peers.about(name)
        if not about.missing:
            assert all(callable(getattr(peers.peer(name), kind)) for kind in about.forms), name


def test_the_quick_set_leaves_naive_forms_out_and_ours_stands_there_twice():
    full = contenders("small", SMALL, Choice(["small"]))
    quick = contenders("small", SMALL, Choice(["small"], quick=True))
    assert {who.form for who in full} - {who.form for who in quick} == {NAIVE}
    again = [who for who in full if who.label == AGAIN]
    assert again == [Contender(AGAIN, "ours", "fast")]
    few = contenders("small", SMALL, Choice(["small"], peers=["ours"]))
    assert {who.peer for who in few} == {"ours", "limit"}


def test_forms_left_out_are_naive_or_rare_or_in_the_quick_set_slow():
    known = [peers.about(name) for name in peers.names() if not peers.about(name).missing]
    assert all({*about.slow, *about.rare} <= {f for forms in about.forms.values() for f in forms} for about in known)

    def left_out(case, variant, **more):
        kind = cases.case(case).KIND
        forms = {(about.file, form) for about in known for form in about.forms.get(kind, ())}
        return forms - {(who.peer, who.form) for who in contenders(case, variant, Choice([case], **more))}

    naive = {(about.file, NAIVE) for about in known if NAIVE in about.forms.get("training", ())}
    slow = {(about.file, form) for about in known for form in about.slow if form in about.forms.get("training", ())}
    assert naive
    assert left_out("mlp", "784-64-64-10, batch 32") == naive
    assert left_out("mlp", "784-64-64-10, batch 32", thorough=True) == set()
    assert left_out("mlp", "784-256-256-10, batch 256") == set()
    assert left_out("mlp", "784-256-256-10, batch 256", quick=True) == naive | slow
    assert left_out("optimizer", "adam, 4 leaves") == {("optax", form) for form in peers.about("optax").rare}
    assert left_out("optimizer", "adam, 32 leaves") == set()


def test_turns_rotate_and_each_is_as_long_as_the_plan():
    order = []
    workers = [Answers(OURS, {"check": 0.1, "call": 0.01}), Answers(PLAIN, {"check": 0.1, "call": 1.0})]
    for worker in workers:
        worker.ask = lambda request, ask=worker.ask, who=worker.contender: order.append(who.label) or ask(request)
    found = _variant("small", "v", workers, Plan(rounds=2, seconds=0.1), lambda _: None)
    assert order == ["ours", "plain JAX", "ours", "plain JAX", "plain JAX", "ours"]
    assert workers[0].asked[1:] == 2 * [{"calls": 10}]
    assert workers[1].asked[1:] == 2 * [{"calls": 1}]
    assert [each.samples for each in found] == 2 * [(1e-3, 1e-3)]


def test_as_many_calls_as_are_counted_come_before_them_unless_they_are_long():
    program = Program(state=0, call=lambda calls: calls + 1, block=lambda _: None, error=lambda _: 0.0, units=1)
    assert turn(Running(program, 0, call=0.01), 5)[0].state == 10
    assert turn(Running(program, 0, call=1.0), 5)[0].state == 5


def test_who_computes_something_else_is_not_timed():
    wrong = Answers(PLAIN, {"check": 3.0, "call": 0.01})
    (found,) = _variant("small", "v", [wrong], Plan(rounds=2, seconds=0.1), lambda _: None)
    assert found.samples == ()
    assert found.problem == "computes something else: 3 times what rounding may make"
    assert rows("small", SMALL, [found])[0].error == 3.0
    assert len(wrong.asked) == 1


def test_who_breaks_down_on_the_way_is_left_out_and_the_others_go_on():
    ill, well = Answers(PLAIN, {"check": 0.1, "call": 0.01}), Answers(OURS, {"check": 0.1, "call": 0.01})
    ill.ask = lambda request, ask=ill.ask: ask(request) if len(ill.asked) < 2 else {"error": "lost"}
    found = _variant("small", "v", [ill, well], Plan(rounds=4, seconds=0.1), lambda _: None)
    assert (found[0].problem, found[0].samples) == ("lost", ())
    assert len(found[1].samples) == 4


def test_a_real_process_measures_and_a_failing_one_says_why():
    who = [Contender("limit", "limit", "measured"), Contender("ours", "ours", "measured")]
    told = []
    ((variant, (good, bad)),) = measure("calibrate", {"launch": who}, Plan(rounds=2, seconds=0.001), told.append)
    assert variant == "launch"
    assert len(good.samples) == 2
    assert all(0 < seconds < 1 for seconds in good.samples)
    assert {"trace", "lower", "compile", "first"} <= set(good.about["stages"])
    assert bad.samples == ()
    assert "calibrate" in bad.problem
    assert told[-1] == "calibrate, launch: round 2 of 2"


def test_a_process_that_died_is_started_anew_for_the_next_variant(monkeypatch):
    started, start = [], rounds._start
    monkeypatch.setattr(rounds, "_start", lambda case, who: started.append(start(case, who)) or started[-1])
    who = [Contender("limit", "limit", "measured")]
    variants = measure("calibrate", {"launch": who, "GEMM float32, 2048": who}, Plan(2, 0.001), lambda _: None)
    next(variants)
    started[0].process.kill()
    started[0].process.wait()
    ((_, (again,)),) = variants
    assert len(started) == 2
    assert len(again.samples) == 2


def test_operations_and_the_limit_hold_for_all_rows():
    about = {"flops": 100, "bytes": 10, "check": 0.1, "stages": {}, "memory": {}}
    measured = [
        Measured(OURS, about, (2.0, 2.0), None),
        Measured(PLAIN, {}, (), "not there"),
        Measured(Contender(LIMIT, LIMIT, "rows"), {}, (1.5, 1.5), None),
        Measured(Contender(LIMIT, LIMIT, "features"), {}, (1.0, 1.0), None),
    ]
    found = rows("small", "v", measured)
    assert {(each.flops, each.bytes, each.limit) for each in found} == {(100, 10, 1.0)}
    assert found[1].problem == "not there"


def test_the_calibration_stands_beside_the_data_sheet():
    found = row("limit", "measured", case="calibrate", variant="GEMM float32, 2048", flops=67 * 10**9)
    (line,) = table.calibrated([found, row()], "gpu NVIDIA H200")
    assert re.fullmatch(r"GEMM float32, 2048: 6\d,\d00 GFLOP/s, (99|100|101)% of the data sheet's 67,000", line)
    (line,) = table.calibrated([found], "cpu cpu")
    assert "data sheet" not in line
    of = {variant: line for variant in ("tf32", "bfloat16") for line in table.calibrated(
        [found._replace(variant=f"GEMM {variant}, 2048")], "gpu NVIDIA H200"
    )}  # fmt: skip
    assert of["tf32"].endswith("data sheet's 494,000")
    assert of["bfloat16"].endswith("data sheet's 989,000")


def test_the_data_sheet_is_of_the_device_and_not_of_one_with_a_similar_name():
    names = ["NVIDIA L4", "NVIDIA L40", "NVIDIA L40S", "NVIDIA H200", "NVIDIA GH200 480GB", "TPU v5 lite", "TPU v5"]
    names += [f"NVIDIA H100{kind}" for kind in (" 80GB HBM3", " PCIe", " NVL")]
    names += [f"NVIDIA A100{kind}" for kind in ("-SXM4-40GB", "-SXM4-80GB", " 80GB PCIe")]
    assert len({peaks(name) for name in names}) == len(names)
    assert peaks("cpu cpu") is None


def test_tf32_is_of_gpus_alone():
    with pytest.raises(ValueError, match="tf32 is a format of NVIDIA's GPUs alone"):
        limit.calibrate(Calibrating("gemm", 8, "tf32"), "measured")


def test_the_mean_of_twice_and_half_as_long_is_as_long():
    assert geometric_mean([2.0, 0.5]) == 1.0


@pytest.mark.parametrize(("time", "text"), [(2.0, "2 s"), (0.0123, "12.3 ms"), (1.5e-5, "15 µs"), (3e-9, "3 ns")])
def test_times_have_units(time, text):
    assert table.seconds(time) == text


def test_the_table_has_the_fastest_first_and_compares_with_our_fastest_form():
    slow = row(form="naive", samples=times(3e-3))
    peer = row("torch eager", samples=times(2e-3, seed=1))
    gone = row("Haiku", samples=(), problem="not installed\nreally")
    ((title, lines),) = table.variants([gone, peer, slow, row()])
    assert title == "small: 64-32-10"
    assert [line.row.peer for line in lines] == ["ours", "torch eager", "ours", "Haiku"]
    assert lines[1].against == ratio(peer.samples, row().samples)
    assert lines[3].against is None
    shown = table.terminal(title, lines)
    assert shown.caption == "Haiku, fast: not measured: not installed"
    assert shown.row_count == 3


def test_the_document_has_the_fastest_of_each_group_and_says_what_is_slower():
    peers_ = [row("torch eager", samples=times(2e-3, seed=1)), row("torch.func", "vmap", samples=times(3e-3))]
    shown = table.markdown(
        [row(), row("Haiku", samples=(), problem="no"), *peers_, row("plain JAX", samples=times(5e-4))]
    )
    head, _, line, _, mean, _, said, _, slower = shown.splitlines()
    assert head.startswith("|  | ours | of the limit | bound by | JAX by hand | JAX libraries | PyTorch |")
    _, title, _, share, binding, plain, libraries, torch, *_ = [cell.strip() for cell in line.split("|")]
    assert title == "small: 64-32-10"
    assert 0.48 < float(share) < 0.52
    assert (binding, plain, libraries) == ("", "0.50 plain JAX, fast", "")
    assert re.fullmatch(r"(1\.9|2\.0)\d torch eager, fast", torch)
    assert re.match(r"The fastest peer of each line takes 0\.(49|50|51) times as long as ours", mean)
    assert re.search(r"with a limit: 0\.(49|50|51) × ours, and (0\.9\d|1\.0\d) × the limit", mean)
    assert said.startswith("Where a peer takes less than 0.95 of our time")
    assert re.fullmatch(r"- small: 64-32-10: plain JAX, fast, 0\.50 \[0\.\d\d, 0\.\d\d\]", slower)
    assert "Where a peer" not in table.markdown([row(), row("stax", samples=times(1.1e-3))])


def test_the_document_says_how_far_two_processes_of_ours_lie_apart():
    slow, peer = row(form="naive", samples=times(2e-3)), row("plain JAX", samples=times(5e-4))
    again = row(AGAIN, "naive", samples=times(1.5e-3, seed=1))  # against the same form, though not the fastest
    shown = table.markdown([row(), slow, again, peer])
    assert re.search(r"Two processes of ours lie up to 1\.3\d × apart on 9 of 10 lines", shown)
    assert re.search(r"plain JAX, fast, 0\.(49|50|51) \[.*\]; ours again 0\.7\d$", shown)


def test_what_a_case_says_besides_times_is_shown_with_the_time_that_compiling_takes():
    told = row(case="accuracy", variant="to 98 %", unit="run", figures={"runs": 11.0, "success": 10 / 11})
    expected = r"accuracy: to 98 %: ours, fast: runs 11, success 0\.9091; (1|0\.99\d|1\.0\d) ms a run, 501 ms with comp"
    (said,) = table.besides([told, told._replace(peer=AGAIN), row()])
    assert re.match(expected, said)
    assert f"- {said}\n" in table.markdown([told, row("stax", case="accuracy", variant="to 98 %", samples=times(5e-4))])


def test_who_is_faster_with_compilation_alone_is_said():
    told = row(case="accuracy", variant="to 98 %", figures={"runs": 11.0})
    peers_ = [told._replace(peer=name, samples=times(at), stages={}) for name, at in (("stax", 0.2), ("Haiku", 0.7))]
    shown = table.markdown([told, told._replace(peer=AGAIN, stages={}), *peers_])
    assert "- accuracy: to 98 %, with compilation: stax, fast, 0.40" in shown
    assert "with compilation: Haiku" not in shown


MACHINE = [
    row("limit", "measured", case="calibrate", variant="GEMM float32, 2048", flops=10**9, samples=times(1e-2)),
    row("limit", "measured", case="calibrate", variant="copy, 256 MB", bytes=10**8, samples=times(1e-2)),
]


@pytest.mark.parametrize(
    ("flops", "bytes_", "expected"),
    [(9 * 10**7, 10**4, "arithmetic"), (10**6, 9 * 10**6, "memory"), (10**6, 10**4, "products")],
)
def test_what_binds_is_what_explains_half_of_the_time(flops, bytes_, expected):
    found = row(flops=flops, bytes=bytes_, limit=6e-4)
    machine = rates(MACHINE)
    assert 0.95e11 < machine.flops < 1.05e11
    assert 0.95e10 < machine.bytes < 1.05e10
    assert binds(found, machine).what == expected
    assert [line.rpartition(" ")[2] for line in table.bound([*MACHINE, found])] == [expected]
    assert f"| {expected} |" in table.markdown([*MACHINE, found])
    assert not list(table.bound([found]))  # without calibration nobody knows
    small = row(flops=10**6, bytes=10**4, limit=None)
    assert {binds(small, machine).what, binds(small._replace(limit=4e-4), machine).what} == {"launch"}


def test_pictures_are_drawn_of_what_was_measured(tmp_path):
    many = [row(case="ensemble", variant=f"{n} × 64-64-64-10, shared data") for n in (1, 8)]
    deep = [row(case="depth", variant=f"{n} blocks") for n in (10, 100)]
    drawn = pictures.draw([*MACHINE, *many, *deep, row(), row("torch eager")], tmp_path)
    assert sorted(path.name for path in drawn) == ["depth.png", "ensemble.png", "ratios.png", "roofline.png"]
    assert all(path.stat().st_size > 10_000 for path in drawn)
    assert pictures.draw([row(samples=(), problem="no"), many[0], deep[0]], tmp_path) == []  # one point is no line


def test_compare_exits_with_1_where_something_is_slower_and_with_0_otherwise(tmp_path):
    machine = {"processor": "one", "cores": 2}
    old, new, same = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "same.json"
    save(old, Record(machine, (row(), row(AGAIN))))
    save(new, Record(machine, (row(samples=times(2e-3)), row(AGAIN, samples=times(2e-3, seed=1)))))
    save(same, Record(machine, (row(samples=times(1e-3, seed=2)), row(AGAIN, samples=times(1e-3, seed=3)))))
    slower = CliRunner().invoke(app, ["compare", str(old), str(new)])
    assert slower.exit_code == 1
    assert re.search(r"SLOWER +2\.\d\d ×  small, 64-32-10: ours, fast", slower.output)
    assert CliRunner().invoke(app, ["compare", str(old), str(same)]).exit_code == 0
    few, other = tmp_path / "few.json", {"packages": {"jax": "1"}, "variables": {"XLA_FLAGS": "--more"}}
    save(few, Record(machine | other, (row(samples=times(1e-3, n=4)), row(AGAIN, samples=times(1e-3, n=4)))))
    told = CliRunner().invoke(app, ["compare", str(old), str(few)]).output
    assert "other software, which peers share: XLA_FLAGS: None and --more; jax: None and 1" in told
    assert "1 have less than 5 rounds, too few to tell" in told
    assert load(old).rows[0].peer == "ours"


PEERS = ("stax", "Haiku", "Equinox")


def run_of(ours, machine=1.0, unlike=1.0, peers=PEERS, seed=0):
    """A run in which all take a millisecond times `machine`, but for ours, and for one peer that is `unlike` them."""
    of = {"ours": ours, AGAIN: ours} | dict.fromkeys(peers, 1.0) | dict.fromkeys(peers[-1:], unlike)
    samples = {peer: times(1e-3 * machine * by, seed + i) for i, (peer, by) in enumerate(of.items())}
    return Record({"processor": "one"}, tuple(row(peer, samples=each) for peer, each in samples.items()))


@pytest.mark.parametrize(
    ("new", "slower"),
    [
        (run_of(1.0, machine=1.5, seed=9), []),  # the machine, and so all of them
        (run_of(1.3, machine=1.5, seed=9), ["ours"]),
        (run_of(1.3, machine=0.5, seed=9), ["ours"]),
        (run_of(1.3, unlike=1.5, seed=9), ["Equinox"]),  # ours is within what an unchanged program differs by
        (run_of(1.5, machine=1.5, seed=9, peers=PEERS[:1]), ["ours", "stax"]),  # one peer is too few to tell
    ],
)
def test_what_became_of_the_peers_became_of_the_machine(new, slower):
    changes = compare(run_of(1.0), new)
    assert sorted(change.new.peer for change in changes if change.slower) == sorted(slower)
    assert all(change.drift == pytest.approx(1.5, rel=0.1) or len(slower) != 0 for change in changes)
    assert len(changes) == len(new.rows) - 1  # ours again is no row of its own


def test_the_command_names_what_it_does_not_know():
    wrong = CliRunner().invoke(app, ["--only", "smal"])
    assert wrong.exit_code == 2
    assert "'smal'; there are calibrate" in wrong.output
    listed = CliRunner().invoke(app, ["--list", "--only", "small"])
    assert listed.exit_code == 0
    assert "64-32-10, batch 32  (quick)" in listed.output
