"""The instrument of the benchmarks: statistics, records, and what is said to have become slower."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness.fingerprint import differences, fingerprint
from benchmarks.harness.record import Record, Row, find, load, save
from benchmarks.report.regression import compare
from benchmarks.report.stats import is_slower, ratio, summary

TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20)


def times(median, n=15, noise=0.02, seed=0):
    return tuple(median * np.random.default_rng(seed).lognormal(0, noise, n))


def row(peer="ours", samples=times(1.0), case="mlp", variant="small"):
    return Row(case, variant, peer, "fast", "step", samples, {"compile": 0.5}, 0.1, 1000, 100, 0.5, {}, {}, None)


@given(TIMES)
def test_a_summary_is_in_order(samples):
    found = summary(samples)
    assert min(samples) == found.least <= found.low <= found.median <= found.high <= max(samples)
    assert found.median == pytest.approx(np.median(samples))


@settings(deadline=None)  # the first time SciPy is imported
@given(TIMES, st.floats(0.1, 10.0))
def test_a_ratio_is_of_the_medians_and_knows_its_scale(samples, scale):
    found = ratio([scale * sample for sample in samples], samples)
    assert found.value == pytest.approx(scale)
    assert found.low == pytest.approx(scale)  # rounds are drawn together
    assert found.high == pytest.approx(scale)


def test_the_interval_holds_the_ratio_nearly_always():
    held = 0
    for seed in range(60):
        found = ratio(times(1.3, 25, 0.1, seed), times(1.0, 25, 0.1, 1000 + seed))
        held += found.low <= 1.3 <= found.high
    assert held >= 50  # 95 % of 60 is 57


@pytest.mark.parametrize("samples", [[], [1.0, 0.0], [1.0, float("nan")], [[1.0]]])
def test_what_is_no_time_is_refused(samples):
    with pytest.raises(ValueError, match="samples must be times above 0"):
        summary(samples)


def test_rounds_must_be_the_same():
    with pytest.raises(ValueError, match="2 rounds and 3"):
        ratio([1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("by", "noise", "slower"),
    [(1.0, 1.0, False), (1.03, 1.0, False), (1.2, 1.0, True), (1.2, 1.3, False), (0.8, 1.0, False)],
)
def test_slower_is_certain_and_more_than_the_noise(by, noise, slower):
    assert is_slower(times(1.0), times(by, seed=1), noise) == slower


def test_a_few_late_samples_are_not_slower():
    assert not is_slower(times(1.0), (*times(1.0, 12, seed=1), 5.0, 6.0, 7.0), 1.0)


def test_three_samples_are_certain_of_nothing():
    assert not is_slower([1.0, 1.1, 0.9], [1.2, 1.0, 1.15], 1.0)


def test_a_record_comes_back(tmp_path):
    record = Record(fingerprint(), (row(), row("torch")))
    save(tmp_path / "one.json", record)
    assert load(tmp_path / "one.json") == record
    assert find(record.rows, peer="torch") == [record.rows[1]]


def test_a_record_of_another_schema_is_refused(tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"schema": "nnjax-benchmarks-0", "rows": []}))
    with pytest.raises(ValueError, match=r"schema 'nnjax-benchmarks-0', expected 'nnjax-benchmarks-1'"):
        load(path)
    path.write_text("nothing")
    with pytest.raises(ValueError, match="no JSON"):
        load(path)


def test_what_became_slower_is_found_and_nothing_else():
    old = Record({}, (row(), row("torch"), row("ours again", times(1.0, seed=5))))
    new = Record(
        {}, (row(samples=times(1.3, seed=1)), row("torch", times(1.01, seed=2)), row("ours again", times(1.3, seed=3)))
    )
    changes = compare(old, new)
    assert [(change.new.peer, change.slower) for change in changes] == [("ours", True), ("torch", False)]
    assert changes[0].by == pytest.approx(1.3, rel=0.05)


def test_noise_of_the_pair_excuses():
    loud = (row(), row("ours again", times(1.5, seed=5)))
    assert not compare(Record({}, loud), Record({}, (row(samples=times(1.3, seed=1)),)))[0].slower


def test_different_machines_are_not_compared():
    one, other = {"processor": "A", "cores": 2}, {"processor": "B", "cores": 2}
    assert differences(one, other) == ["processor: A and B"]
    with pytest.raises(ValueError, match="processor: A and B; --force"):
        compare(Record(one, (row(),)), Record(other, (row(),)))
    assert compare(Record(one, (row(),)), Record(other, (row(),)), force=True)


def test_nothing_in_common_is_said():
    with pytest.raises(ValueError, match="no case is in both"):
        compare(Record({}, (row(),)), Record({}, (row(case="other"),)))


def test_the_fingerprint_knows_this_machine():
    found = fingerprint()
    assert found["devices"]
    assert found["packages"]["jax"]
    assert found["cores"] >= found["affinity"] >= 1
    assert json.loads(json.dumps(found)) == found
