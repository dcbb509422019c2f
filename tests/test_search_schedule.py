"""The schedules of a search, computed by hand: which trials stop where, and what begins in their slots."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_runs import by_rung, by_trial, make_schedule, simulate

from nnjax.train.engine.search import pbt, tpe
from nnjax.train.engine.search.decisions import Scored, decide
from nnjax.train.engine.search.groups import group_rounds
from nnjax.train.engine.search.hyperband import brackets_of
from nnjax.train.engine.search.methods import METHODS
from nnjax.train.engine.search.results import Group, table_of
from nnjax.train.engine.search.schedule import DIVERGED, FINISHED, FREE, STOPPED, first_state, next_state, round_end

NAN = float("nan")

# Schedules by hand ---------------------------------------------------------------------------------------------------


def test_halving_of_a_population_that_holds_all_trials():
    """Nine trials: three continue after one step, one after three."""
    ledger, rounds = simulate(make_schedule(trials=9, slots=9), by_trial([5, 3, 8, 1, 7, 2, 9, 4, 6]))
    assert [round_["taken"] for round_ in rounds[:1]] == [[1] * 9]
    assert rounds[1]["trials"] == [FREE, 1, FREE, 3, FREE, 5, FREE, FREE, FREE]
    assert rounds[2]["trials"] == [FREE, FREE, FREE, 3, FREE, FREE, FREE, FREE, FREE]
    assert rounds[2]["taken"][3] == 6
    assert len(rounds) == 3
    assert ledger.status.tolist() == [STOPPED] * 3 + [FINISHED] + [STOPPED] * 5
    assert ledger.rung.tolist() == [1, 2, 1, 3, 1, 2, 1, 1, 1]


def test_halving_refills_slots_at_once():
    """Two slots, five trials, half of the trials continue after the first step.

    After step 1: of 0 (.5) and 1 (.3), 1 continues. Trial 2 begins, and is worse (.4) than 1, of three the best one
    continues. 1 has ended; 3 (.2) and 4 (.6) begin; of five the best two, 3 and 1, continue.
    """
    schedule = make_schedule(trials=5, slots=2, ends=(1, 2), keep=0.5)
    ledger, rounds = simulate(schedule, by_trial([0.5, 0.3, 0.4, 0.2, 0.6]))
    assert [round_["trials"] for round_ in rounds] == [[0, 1], [2, 1], [3, 4], [3, FREE]]
    assert [round_["moves"].fresh.tolist() for round_ in rounds] == [
        [True, False],
        [True, True],
        [False, False],
        [False, False],
    ]
    assert ledger.status.tolist() == [STOPPED, FINISHED, STOPPED, FINISHED, STOPPED]
    np.testing.assert_array_equal(ledger.scores[:, 1], [NAN, 0.3, NAN, 0.2, NAN])


def test_slots_take_the_same_number_of_steps():
    """A round ends when the first trial reaches its rung: trial 1, two steps before trial 0 does, and then 2."""
    _, rounds = simulate(make_schedule(trials=4, slots=2, ends=(1, 4), keep=0.5), by_trial([1, 2, 3, 4]))
    assert [(round_["trials"], round_["taken"]) for round_ in rounds] == [
        ([0, 1], [1, 1]),
        ([0, 2], [1, 1]),
        ([0, 3], [1, 1]),
        ([0, FREE], [1, 0]),
    ]


def test_hyperband_brackets_begin_at_different_rungs():
    """Two rungs, keep 1/2: trials alternate between two brackets. Only those of bracket 0 are compared at rung 0."""
    schedule = make_schedule("hyperband", trials=4, slots=4, ends=(1, 2), keep=0.5)
    ledger, _ = simulate(schedule, by_trial([0.4, 0.9, 0.3, 0.8]))
    assert ledger.status.tolist() == [STOPPED, FINISHED, FINISHED, FINISHED]


def test_hyperband_has_the_brackets_of_the_paper():
    """Table 1 of Li et al. has 81, 34, 15, 8 and 5 trials for R = 81 and η = 3."""
    brackets = brackets_of(np.arange(143), rungs=5, keep=1 / 3)
    assert np.bincount(brackets).tolist() == [81, 34, 15, 8, 5]
    assert np.bincount(brackets[:72]).tolist() == pytest.approx([40, 17, 8, 4, 3], abs=1)  # also in half of a cycle


def test_random_search_stops_nobody():
    ledger, rounds = simulate(make_schedule("random", trials=5, slots=2), by_trial([3, 1, 4, 1, 5]))
    assert (ledger.status == FINISHED).all()
    assert np.isfinite(ledger.scores).all()
    assert len(rounds) == 9  # three rungs for each pair of trials


def test_population_based_training_copies_good_trials():
    """Four slots: the two worst are replaced by copies of the two best. Then all six trials have begun."""
    schedule = make_schedule("pbt", trials=6, slots=4, keep=0.5)
    ledger, rounds = simulate(schedule, by_trial([0.1, 0.4, 0.2, 0.3, 0.15, 0.5]))
    moves, after = rounds[0]["moves"], rounds[0]["after"]
    assert rounds[1]["trials"] == [0, 4, 2, 5]
    assert moves.source[[0, 2]].tolist() == [0, 2]
    assert set(moves.source[[1, 3]]) <= {0, 2}
    assert not moves.fresh.any()
    assert (after.done == 1).all()  # the copies have taken the steps of their donors
    assert ledger.parent.tolist() == [-1, -1, -1, -1, *(rounds[0]["trials"][s] for s in moves.source[[1, 3]])]
    assert ledger.status.tolist() == [FINISHED, STOPPED, FINISHED, STOPPED, FINISHED, FINISHED]
    assert np.isnan(ledger.scores[4:, 0]).all()
    assert (ledger.units[4:] != ledger.units[ledger.parent[4:]]).all()


def test_population_based_training_stops_nobody_without_a_trial_to_replace_it():
    """Trial 0 diverges, and the last trial takes its slot, so the worst of the others continues."""
    schedule = make_schedule("pbt", trials=5, slots=4, keep=0.5)
    ledger, rounds = simulate(schedule, by_trial([1, 2, 3, 4, 5]), lambda trial: 0 if trial == 0 else None)
    assert rounds[1]["trials"] == [4, 1, 2, 3]
    assert ledger.status.tolist() == [DIVERGED, FINISHED, FINISHED, FINISHED, FINISHED]


def test_perturbed_settings():
    """A number is multiplied by 0.8 or 1.2, or drawn anew with probability 1/4."""
    schedule = make_schedule("pbt", trials=2000, slots=4)
    ledger, _ = simulate(make_schedule("pbt", trials=4, slots=4), by_trial([0.1, 0.4, 0.2, 0.3]))
    ledger = ledger._replace(units=np.full_like(ledger.units, 0.5))
    units = np.array([pbt.perturb(schedule, ledger, trial, 0)[0] for trial in range(2000)])
    shares = [np.isclose(units, value).mean() for value in (0.4, 0.6)]
    assert shares == pytest.approx([0.375, 0.375], abs=0.04)


def test_patience_frees_a_slot_at_once():
    """One slot. Trial 0 is best at rung 1 (3); 4 and a second 3 are no improvement, so it ends after four steps."""
    schedule = make_schedule("random", trials=2, slots=1, ends=(1, 2, 3, 4, 5), patience=2)
    ledger, rounds = simulate(schedule, by_rung([[5, 3, 4, 3, 1], [5, 6, 4, 5, 3]]))
    assert [round_["trials"] for round_ in rounds] == [[0]] * 4 + [[1]] * 5
    assert rounds[3]["moves"].fresh.tolist() == [True]
    assert ledger.status.tolist() == [STOPPED, FINISHED]
    np.testing.assert_array_equal(ledger.scores[0], [5, 3, 4, 3, NAN])


def test_halving_with_patience():
    """Four trials, half continue. After step 2, trial 0 is the best (2) but was better before (1), so it is stopped.

    Its score still counts: of the two trials at rung 1 one continues, and trial 1 (3) is not the better one.
    """
    schedule = make_schedule(trials=4, slots=4, ends=(1, 2, 3), keep=0.5, patience=1)
    ledger, rounds = simulate(schedule, by_rung([[1, 2, 0], [4, 3, 0], [5, 0, 0], [6, 0, 0]]))
    assert ledger.rung.tolist() == [2, 2, 1, 1]
    assert (ledger.status == STOPPED).all()
    assert len(rounds) == 2


def test_population_based_training_with_patience():
    """Four slots, seven trials, half continue. 4 and 5 replace the two worst, 2 and 3. After step 2, 0 is worse than
    before, so it is stopped and the last trial takes its slot. The worst of the others continues.
    """
    scores = [[1, 2], [3, 2.5, 2], [9], [8], [0, 7, 6], [0, 9, 8], [0, 0, 7]]
    schedule = make_schedule("pbt", trials=7, slots=4, ends=(1, 2, 3), keep=0.5, patience=1)
    ledger, rounds = simulate(schedule, by_rung(scores))
    assert [round_["trials"] for round_ in rounds] == [[0, 1, 2, 3], [0, 1, 4, 5], [6, 1, 4, 5]]
    assert not rounds[1]["moves"].fresh.any()
    assert ledger.status.tolist() == [STOPPED, FINISHED, STOPPED, STOPPED, FINISHED, FINISHED, FINISHED]


@pytest.mark.parametrize(
    ("groups", "trials", "keep", "expected"),
    [
        (1, 10, 0.5, [[10]]),
        (2, 10, 0.5, [[3, 2], [5]]),
        (9, 27, 1 / 3, [[1] * 9, [3, 3, 3], [9]]),
        (3, 9, 1.0, [[3, 3, 3]]),
    ],
)
def test_rounds_of_groups(groups, trials, keep, expected):
    assert group_rounds(groups, trials, keep) == expected


# Ties, NaN, and numbers that do not fit ------------------------------------------------------------------------------


def test_of_equal_scores_the_earlier_trial_continues():
    ledger, _ = simulate(make_schedule(trials=3, slots=3, ends=(1, 2)), by_trial([1, 1, 1]))
    assert ledger.status.tolist() == [FINISHED, STOPPED, STOPPED]


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_without_a_finite_score_is_out(method):
    """Trial 0 has a NaN score; 1 diverges before its first rung. Their slots are used again."""
    schedule = make_schedule(method, trials=6, slots=2, ends=(2, 4), keep=0.5)
    diverge = lambda trial: 0 if trial == 1 else None  # noqa: E731
    ledger, rounds = simulate(schedule, lambda trial, units, step: NAN if trial == 0 else trial, diverge)
    assert ledger.status[:2].tolist() == [DIVERGED, DIVERGED]
    assert ledger.diverged[:2, 0].tolist() == [-1, 0]
    assert rounds[1]["trials"] == [2, 3]
    assert (ledger.status >= STOPPED).all()


def test_divergence_is_seen_at_the_end_of_a_round_that_others_end():
    """Slot 0 needs two steps to its rung when slot 1 ends a round; a divergence between them frees slot 0 there."""
    schedule = make_schedule(trials=3, slots=2, ends=(1, 3), keep=0.5)
    ledger, rounds = simulate(schedule, by_trial([1, 2, 3]), lambda trial: 1 if trial == 0 else None)
    assert [round_["trials"] for round_ in rounds] == [[0, 1], [0, 2]]
    assert ledger.status.tolist() == [DIVERGED, STOPPED, STOPPED]


def test_fewer_trials_than_slots():
    schedule = make_schedule(trials=2, slots=64, ends=(1, 2), keep=0.5)
    ledger, _ = simulate(schedule, by_trial([2, 1]))
    assert ledger.status.tolist() == [STOPPED, FINISHED]


def test_larger_scores_are_better_after_a_minus():
    schedule = make_schedule(trials=2, slots=2, ends=(1, 2), keep=0.5, score="-loss")
    ledger, _ = simulate(schedule, by_trial([2, 1]))
    assert ledger.status.tolist() == [FINISHED, STOPPED]
    assert ledger.scores[:, 0].tolist() == [-2, -1]


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(sorted(METHODS)),
    trials=st.integers(1, 30),
    slots=st.integers(1, 12),
    increments=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    keep=st.sampled_from([0.2, 1 / 3, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 1000),
    patience=st.sampled_from([None, 1, 2]),
)
def test_no_trial_starves(method, trials, slots, increments, keep, seed, patience):
    """Every trial begins, in order; all end; no slot is empty while trials wait; and who continues has a score."""
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(trials) < 0.1, NAN, rng.integers(0, 5, trials))  # ties and NaN
    schedule = make_schedule(
        method,
        trials=trials,
        slots=slots,
        ends=tuple(np.cumsum(increments)),
        keep=keep,
        seed=seed,
        patience=patience,
    )
    ledger, rounds = simulate(schedule, by_trial(scores))
    assert (ledger.status >= STOPPED).all()
    assert ((ledger.status == DIVERGED) == np.isnan(scores)).all()
    first_seen = list(dict.fromkeys(trial for round_ in rounds for trial in round_["trials"] if trial != FREE))
    assert first_seen == list(range(trials))
    begun = 0
    for round_ in rounds:
        begun = max(begun, *(trial + 1 for trial in round_["trials"]))
        assert begun == trials or FREE not in round_["trials"]
    if np.isfinite(scores).any() and method != "hyperband" and patience is None:
        assert (ledger.status == FINISHED).any()
    assert (np.isfinite(ledger.scores).sum(1)[ledger.parent < 0] == ledger.rung[ledger.parent < 0]).all()


# Decisions from the table ---------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    method=st.sampled_from(sorted(METHODS)),
    trials=st.integers(1, 12),
    slots=st.integers(1, 5),
    increments=st.lists(st.integers(2, 5), min_size=1, max_size=3),
    extra=st.integers(0, 2),
    patience=st.sampled_from([None, 1]),
    seed=st.integers(0, 1000),
)
def test_the_same_decisions_follow_from_the_table(method, trials, slots, increments, extra, patience, seed):
    """Also for folds with epochs of different lengths, of which one or both diverge between two rounds' ends."""
    rng = np.random.default_rng(seed)
    short = np.cumsum(increments)
    ends = np.stack([short, short + extra * np.arange(1, len(short) + 1)])
    last = ends[:, -1]
    lost = np.where(rng.random((trials, 2)) < 0.4, rng.integers(0, last, (trials, 2)), last)  # step of each fold
    values = rng.random((trials, len(short), 2))
    schedule = make_schedule(method, trials=trials, slots=slots, keep=0.5, score="score", seed=seed, patience=patience)
    schedule = schedule._replace(ends=ends)
    state, _ = first_state(schedule)
    diverged = np.full(state.done.shape, -1)  # (slots, folds)
    while (state.trial != FREE).any():
        until = round_end(schedule, state)
        trial = state.trial
        new = (trial != FREE)[:, None] & (state.done <= lost[trial]) & (lost[trial] < until) & (diverged < 0)
        diverged = np.where(new, lost[trial], diverged)
        scores = values[trial, state.ledger.rung[trial] % len(short)]
        state, moves = next_state(schedule, state, until, {"score": scores}, diverged)
        diverged = np.where(moves.fresh[:, None], -1, diverged[moves.source])
    epochs = tuple(range(1, len(short) + 1))
    group = Group(None, (), ("x",), epochs, schedule, state.ledger, np.arange(trials))
    rows = {row["trial"]: row for row in table_of([group])}
    scored = Scored(lambda trial, rung: rows[trial][f"score_{rung + 1}"], lambda trial: rows[trial]["diverged"])
    decisions = decide(
        {"x": schedule.dimensions[0]},
        lambda fixed: ends,
        scored,
        trials=trials,
        population=slots,
        epochs=epochs,
        keep=0.5,
        method=method,
        key=schedule.key,
        patience=patience,
    )
    for row in table_of(decisions.groups):
        expected = rows[row["trial"]]
        for name in ("x", "status", "epochs", "parent"):
            assert row.get(name) == expected.get(name), (name, row, expected)


# Regret against random search ----------------------------------------------------------------------------------------

OPTIMUM = 0.3


def regret(method, seed, *, trials, slots, ends, dimensions=1):
    """The lowest value of a quadratic among the trials that finished; early scores are in the same order."""

    def score(trial, units, step):
        return float(((units - OPTIMUM) ** 2).sum()) + 1 / step

    schedule = make_schedule(method, trials=trials, slots=slots, ends=ends, dimensions=dimensions, seed=seed)
    ledger, rounds = simulate(schedule, score)
    steps = sum(sum(round_["taken"]) for round_ in rounds)
    return np.nanmin(ledger.scores[:, -1]) - 1 / ends[-1], steps


def test_halving_finds_better_settings_for_the_same_steps():
    """A trial of halving takes about 3 of 27 steps, so it draws about nine times as many points of the unit interval.

    The distance of the nearest of n uniform points is of order 1 / n: nine times as near.
    """
    ends, seeds = (1, 3, 9, 27), range(100)
    few = [regret("random", seed, trials=20, slots=20, ends=ends) for seed in seeds]
    many = [regret("halving", seed, trials=180, slots=180, ends=ends) for seed in seeds]
    assert sum(steps for _, steps in many) <= sum(steps for _, steps in few)
    distance = [np.mean(np.sqrt([value for value, _ in values])) for values in (few, many)]
    assert distance[0] / distance[1] == pytest.approx(9, rel=0.4)


def test_tpe_is_nearer_to_the_optimum_than_random_search():
    regrets = {
        method: [regret(method, seed, trials=100, slots=5, ends=(1,), dimensions=3)[0] for seed in range(20)]
        for method in ("random", "tpe")
    }
    assert np.median(regrets["tpe"]) < 0.3 * np.median(regrets["random"])
    assert np.mean(np.array(regrets["tpe"]) < np.array(regrets["random"])) >= 0.85


def test_tpe_densities_integrate_to_one():
    points = np.random.default_rng(0).random((7, 1))
    x = (np.arange(20_000)[:, None] + 0.5) / 20_000
    assert np.exp(tpe.log_density(x, points)).mean() == pytest.approx(1, abs=1e-3)
