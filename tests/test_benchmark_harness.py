"""Runs of the benchmarks: who takes part, how they are timed, and what is recorded."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import peers
from benchmarks.__main__ import app
from benchmarks.cases import case_names, load_case
from benchmarks.harness.environment import usable_cores
from benchmarks.harness.fingerprint import machine_differences, take_fingerprint
from benchmarks.harness.record import AGAIN, LIMIT, Record, Row, find_rows, load_record, save_record
from benchmarks.harness.rounds import Measurement, Plan, keep_workers, measure_in_turn, start_workers, worker_pool
from benchmarks.harness.run import NAIVE, Choice, build_rows, choose_contenders
from benchmarks.harness.worker import ProgramState, time_calls
from benchmarks.harness.worker_process import Contender
from benchmarks.jobs.program import Program
from benchmarks.peers import peer_names, read_head

SMALL = "64-32-10, batch 32"
OURS, PLAIN = Contender("ours", "ours", "fast"), Contender("plain JAX", "plain_jax", "fast")
SETUP = {"check": 0.1, "call": 0.01}


class FakeWorker:
    """A worker without a process: it answers "set up" with `setup`, and every other request with one millisecond."""

    def __init__(self, setup):
        self.setup, self.requests = setup, []

    def ask(self, request):
        self.requests.append(request)
        return self.setup if "set up" in request else {"seconds": 1e-3, "figures": {}}


def measure(workers, plan):
    """Measure contenders, each with its worker."""
    processes = {contender.process: worker for contender, worker in workers.items()}
    return measure_in_turn("small", "v", list(workers), processes, plan, lambda line: None)


def test_every_case_has_a_peer_and_its_variants_exist():
    kinds = {kind for name in peer_names() for kind in read_head(name).forms}
    for name in case_names():
        case = load_case(name)
        assert case.KIND in kinds, name
        for variants in ("QUICK", "THOROUGH", "ROUNDS", "EXTRA"):
            assert {*getattr(case, variants, ())} <= {*case.JOBS}, (name, variants)
        assert case.__doc__, name
        assert case.UNIT, name


def test_the_quick_set_has_neither_naive_forms_nor_cuda_graphs_and_ours_takes_part_twice():
    full = choose_contenders("small", SMALL, Choice(["small"]))
    quick = choose_contenders("small", SMALL, Choice(["small"], quick=True))
    assert {who.form for who in full} - {who.form for who in quick} == {NAIVE, "CUDA graphs"}
    assert [who for who in full if who.label == AGAIN] == [Contender(AGAIN, "ours", "fast")]
    few = choose_contenders("small", SMALL, Choice(["small"], peers=["ours"]))
    assert {who.peer for who in few} == {"ours", "limit"}


def test_only_naive_rare_and_in_the_quick_set_slow_forms_are_left_out():
    heads = [head for head in map(read_head, peer_names()) if not head.missing]
    assert all({*head.slow, *head.rare} <= {f for forms in head.forms.values() for f in forms} for head in heads)

    def left_out(case, variant, **options):
        kind = load_case(case).KIND
        forms = {(head.file, form) for head in heads for form in head.forms.get(kind, ())}
        return forms - {(who.peer, who.form) for who in choose_contenders(case, variant, Choice([case], **options))}

    naive = {(head.file, NAIVE) for head in heads if NAIVE in head.forms.get("training", ())}
    slow = {(head.file, form) for head in heads for form in head.slow if form in head.forms.get("training", ())}
    assert naive
    assert left_out("mlp", "784-64-64-10, batch 32") == naive
    assert left_out("mlp", "784-64-64-10, batch 32", thorough=True) == set()
    assert left_out("mlp", "784-256-256-10, batch 256") == set()
    assert left_out("mlp", "784-256-256-10, batch 256", quick=True) == naive | slow


def test_turns_rotate_and_are_as_long_as_the_plan_says():
    order = []
    workers = {OURS: FakeWorker(SETUP), PLAIN: FakeWorker({"check": 0.1, "call": 1.0})}
    for who, worker in workers.items():
        worker.ask = lambda request, ask=worker.ask, who=who: order.append(who.label) or ask(request)
    measurements = measure(workers, Plan(rounds=2, seconds=0.1))
    assert order == ["ours", "plain JAX", "ours", "plain JAX", "plain JAX", "ours", "ours", "plain JAX"]
    assert workers[OURS].requests[0] == {"set up": "fast", "case": "small", "variant": "v"}
    assert workers[OURS].requests[1:] == [*2 * [{"time": "fast", "calls": 10}], {"forget": True}]
    assert workers[PLAIN].requests[1:] == [*2 * [{"time": "fast", "calls": 1}], {"forget": True}]
    assert [m.samples for m in measurements] == 2 * [(1e-3, 1e-3)]


def test_short_calls_are_warmed_up():
    program = Program(state=0, call=lambda calls: calls + 1, block=lambda _: None, error=lambda _: 0.0, units=1)
    assert time_calls(ProgramState(program, 0, call_seconds=0.01), 5)[0].state == 10
    assert time_calls(ProgramState(program, 0, call_seconds=1.0), 5)[0].state == 5


def test_wrong_results_are_not_timed():
    worker = FakeWorker({"check": 3.0, "call": 0.01})
    (measurement,) = measure({PLAIN: worker}, Plan(rounds=2, seconds=0.1))
    assert measurement.samples == ()
    assert measurement.problem == "wrong result: the error is 3 times what rounding may cause"
    assert build_rows("small", SMALL, [measurement])[0].error == 3.0
    assert not [request for request in worker.requests if "time" in request]


def test_a_contender_that_fails_drops_out():
    failing, working = FakeWorker(SETUP), FakeWorker(SETUP)
    failing.ask = lambda request, ask=failing.ask: ask(request) if len(failing.requests) < 2 else {"error": "lost"}
    measurements = measure({PLAIN: failing, OURS: working}, Plan(rounds=4, seconds=0.1))
    assert (measurements[0].problem, measurements[0].samples) == ("lost", ())
    assert len(measurements[1].samples) == 4


def test_processes_measure_and_say_why_they_fail_and_are_restarted():
    limit, stax = Contender("limit", "limit", "measured"), Contender("stax", "stax", "measured")
    lines, plan = [], Plan(rounds=2, seconds=0.001)
    with worker_pool() as workers:
        start_workers(workers, [limit, stax])
        working, failing = measure_in_turn("calibrate", "launch", [limit, stax], workers, plan, lines.append)
        assert len(working.samples) == 2
        assert all(0 < seconds < 1 for seconds in working.samples)
        assert {"trace", "lower", "compile", "first"} <= set(working.setup["stages"])
        assert failing.samples == ()
        assert "calibration" in failing.problem  # stax has no function of that name
        assert lines[-1] == "calibrate, launch: round 2 of 2"
        first = workers[limit.process]
        first.process.kill()
        first.process.wait()
        start_workers(workers, [limit])
        (restarted,) = measure_in_turn("calibrate", "launch", [limit], workers, plan, lines.append)
        assert workers[limit.process] is not first
        assert len(restarted.samples) == 2
        other = workers[stax.process]
        keep_workers(workers, {limit.process})
        assert list(workers) == [limit.process]
        assert other.process.returncode is not None
    assert restarted.contender == limit
    assert workers == {}


def test_the_forms_of_a_peer_share_a_process_unless_they_change_it():
    for head in map(read_head, peer_names()):
        assert {*head.apart} <= {form for forms in head.forms.values() for form in forms}, head.name
    contenders = choose_contenders("ensemble", "8 × 64-64-64-10, shared data", Choice(["ensemble"]))
    ours = [contender for contender in contenders if contender.label == "ours"]
    assert len({who.process for who in ours if who.form in ("map", "vmap")}) == 1
    assert len({who.process for who in ours}) == 3
    again = next(contender for contender in contenders if contender.label == AGAIN)
    assert again.process not in {who.process for who in ours}


@pytest.mark.skipif(usable_cores() < 2, reason="one core")
def test_a_process_on_all_cores_starts_their_devices():
    who = Contender("plain JAX", "plain_jax", "map on all cores", apart=True)
    with worker_pool() as workers:
        start_workers(workers, [who])
        variant = "8 × 64-64-64-10, shared data"
        (measurement,) = measure_in_turn("ensemble", variant, [who], workers, Plan(1, 0.001), lambda line: None)
    assert measurement.problem is None
    assert len(measurement.samples) == 1


def test_programs_of_one_process_are_measured_in_turn_and_forgotten():
    rows, features = (Contender("limit", "limit", form) for form in ("rows", "features"))
    with worker_pool() as workers:
        start_workers(workers, [rows, features])
        assert len(workers) == 1
        measured = measure_in_turn("small", SMALL, [rows, features], workers, Plan(2, 0.001), lambda line: None)
        assert [len(measurement.samples) for measurement in measured] == [2, 2]
        assert "KeyError" in workers[rows.process].ask({"time": "rows", "calls": 1})["error"]


def test_operations_and_the_limit_hold_for_all_rows():
    setup = {"flops": 100, "bytes": 10, "check": 0.1, "stages": {}, "memory": {}}
    measurements = [
        Measurement(OURS, setup, (2.0, 2.0), None),
        Measurement(PLAIN, {}, (), "not installed"),
        Measurement(Contender(LIMIT, LIMIT, "rows"), {}, (1.5, 1.5), None),
        Measurement(Contender(LIMIT, LIMIT, "features"), {}, (1.0, 1.0), None),
    ]
    rows = build_rows("small", "v", measurements)
    assert {(row.flops, row.bytes, row.limit) for row in rows} == {(100, 10, 1.0)}
    assert rows[1].problem == "not installed"


def make_row(peer):
    return Row("mlp", "small", peer, "fast", "step", (1.0, 2.0), {"compile": 0.5}, 0.1, 1000, 100, 0.5, {}, {}, None)


def test_a_record_survives_saving_and_has_the_fingerprint_of_this_machine(tmp_path):
    fingerprint = take_fingerprint()
    assert fingerprint["devices"]
    assert fingerprint["packages"]["jax"]
    assert fingerprint["cores"] >= fingerprint["affinity"] >= 1
    record = Record(fingerprint, (make_row("ours"), make_row("torch")))
    save_record(tmp_path / "results.json", record)
    assert load_record(tmp_path / "results.json") == record
    assert find_rows(record.rows, peer="torch") == [record.rows[1]]
    assert find_rows(record.rows, case="mlp", form="naive") == []


def test_files_that_are_not_records_are_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"schema": "nnjax-benchmarks-0", "rows": []}))
    with pytest.raises(ValueError, match=r"got schema 'nnjax-benchmarks-0', expected 'nnjax-benchmarks-1'"):
        load_record(path)
    path.write_text("nothing")
    with pytest.raises(ValueError, match="not a JSON file"):
        load_record(path)


def test_machines_differ_in_hardware_only():
    a, b = {"processor": "A", "cores": 2, "python": "1"}, {"processor": "B", "cores": 2, "python": "2"}
    assert machine_differences(a, b) == ["processor: A and B"]


def test_the_command_measures_and_writes_everything(tmp_path, monkeypatch):
    rows = [[make_row("ours"), make_row("plain JAX")._replace(samples=(), problem="ValueError: only one device")]]
    monkeypatch.setattr("benchmarks.__main__.run_benchmarks", lambda choice, show: iter(rows))
    monkeypatch.setattr("benchmarks.__main__.worker_fingerprint", take_fingerprint)
    result = CliRunner().invoke(app, ["--quick", "--only", "small", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "nnjax, fast" in result.output
    assert "1 forms cannot run here" in result.output
    assert max(map(len, result.output.splitlines())) <= 80 or str(tmp_path) in result.output
    assert load_record(tmp_path / "results.json").rows == tuple(rows[0])


def test_the_command_names_what_it_does_not_know():
    wrong = CliRunner().invoke(app, ["--only", "smal"])
    assert wrong.exit_code == 2
    assert re.search(r"got 'smal', expected one of\s+calibrate", re.sub(r"[│\s]+", " ", wrong.output))
    listed = CliRunner().invoke(app, ["--list", "--only", "small"])
    assert listed.exit_code == 0
    assert "64-32-10, batch 32  (quick)" in listed.output


def test_peers_do_not_import_each_other():
    folder = Path(peers.__file__).parent
    for name in peer_names():
        files = sorted((folder / name).glob("*.py")) or [folder / f"{name}.py"]
        imports = re.findall(r"benchmarks\.peers\.(\w+)", "\n".join(path.read_text() for path in files))
        assert {part for part in imports if not part.startswith("_")} <= {name}
