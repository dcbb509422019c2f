"""Folds: the rows that they hold out, and members that are single runs on their own rows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import train_runs
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import model_selection
from train_runs import KEY, RUN, X, Y, assert_close, assert_equal, own_rows, take

from nnjax import losses, nn, optim, train
from nnjax.train.engine.ensemble import index_tree
from nnjax.types import Data

N = 14
DATA = Data(X[:N], Y[:N], jnp.linspace(0.5, 2.0, N))
FULL = train.Run(nn.dense(2), losses.cross_entropy, optim.momentum(0.1), batch_size=None)
RANDOM_KEYS = st.integers(0, 99).map(jax.random.key)
STRATEGIES = pytest.mark.parametrize("strategy", ["map", "vmap"])


def fit(run=RUN, data=DATA, **settings):
    """Fit; members are validated on the rows that their folds hold out."""
    return train_runs.fit(run, data, **{"validation": None} | settings)


def assert_members_are_runs_on_their_rows(folds, result, run, data, **settings):
    """Compare bits and the number of steps; and the scores with those on the held-out rows."""
    keys = jax.random.split(KEY, len(folds.train.table))
    for f, key in enumerate(keys):
        held_out = take(data, own_rows(folds.held_out, f))
        alone = fit(run, take(data, own_rows(folds.train, f)), key=key, validation=held_out, **settings)
        assert_equal(index_tree(result.ts, f), alone.ts)
        np.testing.assert_array_equal(result.losses[f, : len(alone.losses)], alone.losses)
        assert np.isnan(result.losses[f, len(alone.losses) :]).all()
        assert len(result.history) == len(alone.history)
        for many, one in zip(result.history, alone.history, strict=True):
            for name in one.keys() - {"epoch", "step"}:
                np.testing.assert_allclose(many[name][f], one[name], rtol=1e-5)
        assert_equal(index_tree((result.best.params, result.best.state, result.best.step), f),
                     (alone.best.params, alone.best.state, alone.best.step))  # fmt: skip


# Splitters -----------------------------------------------------------------------------------------------------------

GROUPS = np.array([0, 0, 1, 2, 2, 2, 3, 3, 1, 0, 3, 2, 1, 1])
SPLITTERS = [
    (model_selection.KFold(3), None),
    (model_selection.GroupKFold(3), GROUPS),
    (model_selection.TimeSeriesSplit(3), None),
    (model_selection.StratifiedKFold(2, shuffle=True, random_state=0), None),
    (model_selection.ShuffleSplit(3, test_size=0.3, random_state=0), None),
    (model_selection.RepeatedKFold(n_splits=2, n_repeats=2, random_state=0), None),
    (model_selection.LeaveOneGroupOut(), GROUPS),
]


@pytest.mark.parametrize(("splitter", "groups"), SPLITTERS, ids=[type(s).__name__ for s, _ in SPLITTERS])
def test_folds_of_a_splitter_have_its_rows(splitter, groups):
    splits = list(splitter.split(np.zeros(N), np.arange(N) % 2, groups))
    folds = train.Folds.from_splits(iter(splits))
    assert len(folds.train.table) == len(folds.held_out.table) == len(splits)
    for f, (rows, held_out) in enumerate(splits):
        assert own_rows(folds.train, f).tolist() == rows.tolist()
        assert own_rows(folds.held_out, f).tolist() == held_out.tolist()


def test_folds_of_a_splitter_are_trained(optimizing_compiler):
    folds = train.Folds.from_splits(model_selection.GroupKFold(2).split(np.zeros(N), groups=GROUPS))
    assert_members_are_runs_on_their_rows(folds, fit(folds=folds), RUN, DATA)


def test_kfold_without_shuffling_equals_leave_one_out():
    splits = model_selection.KFold(N).split(np.zeros(N))
    assert_equal(train.Folds.from_splits(splits), train.leave_one_out(N))


@pytest.mark.parametrize(
    ("splits", "error", "message"),
    [
        ([], ValueError, "there are no splits"),
        ([[0, 1, 2]], TypeError, r"split 0 must be a pair \(rows to train on, rows to hold out\), got \[0, 1, 2\]"),
        ([([0], [1]), 3], TypeError, "split 1 must be a pair"),
        ([([0], [])], ValueError, "split 0 must hold at least one row in each part"),
        ([([], [0])], ValueError, "split 0 must hold at least one row in each part"),
        ([([0, -1], [1])], ValueError, "none below 0"),
        ([([0, 1, 2], [3, 2])], ValueError, "split 0: row 2 is both trained on and held out"),
        ([([True, False], [False, True])], TypeError, "must hold lists of row numbers, got bool"),
        ([([0.0], [1.0])], TypeError, "must hold lists of row numbers, got float64"),
        ([([[0]], [[1]])], TypeError, r"got int64 of shape \(1, 1\)"),
    ],
)
def test_wrong_splits_are_refused(splits, error, message):
    with pytest.raises(error, match=f"Folds.from_splits: .*{message}"):
        train.Folds.from_splits(splits)


# Rows ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(RANDOM_KEYS, st.sampled_from([2, 3, 10, 37]), st.data())
def test_k_fold_partitions_the_rows(key, n, drawn):
    k = drawn.draw(st.integers(2, n))
    labels = drawn.draw(st.none() | st.lists(st.integers(0, 3), min_size=n, max_size=n))
    folds = train.k_fold(key, n, k, stratify=labels)
    held_out = [own_rows(folds.held_out, f).tolist() for f in range(k)]
    assert sorted(itertools.chain(*held_out)) == list(range(n))
    for f in range(k):
        assert sorted(held_out[f] + own_rows(folds.train, f).tolist()) == list(range(n))
    assert np.ptp(folds.held_out.sizes) <= 1
    if labels is not None:
        for label in set(labels):
            shares = [sum(labels[row] == label for row in rows) for rows in held_out]
            assert max(shares) - min(shares) <= 1


def test_k_fold_follows_from_the_key():
    one, same, other = (train.k_fold(jax.random.key(k), 30, 3).held_out.table for k in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(np.sort(one.ravel()), one.ravel())


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 20))
def test_leave_one_out(n):
    folds = train.leave_one_out(n)
    for f in range(n):
        assert own_rows(folds.held_out, f).tolist() == [f]
        assert own_rows(folds.train, f).tolist() == [i for i in range(n) if i != f]


@settings(max_examples=10, deadline=None)
@given(RANDOM_KEYS, st.sampled_from([12, 30]), st.sampled_from([1, 4]))
def test_bootstrap(key, n, members):
    folds = train.bootstrap(key, n, members)
    assert folds.train.table.shape == (members, n)
    for f in range(members):
        drawn, left = own_rows(folds.train, f), own_rows(folds.held_out, f)
        assert len(drawn) == n
        assert sorted({*drawn.tolist()} | {*left.tolist()}) == list(range(n))
        assert not {*drawn.tolist()} & {*left.tolist()}


def test_bootstrap_leaves_a_third_out():
    folds = train.bootstrap(KEY, 1000, 20)
    assert abs(folds.held_out.sizes.mean() / 1000 - np.exp(-1)) < 0.01
    assert not np.array_equal(folds.train.table[0], folds.train.table[1])


# Members -------------------------------------------------------------------------------------------------------------


def test_vmapped_folds_are_runs_on_their_rows_to_rounding():
    """After one step."""
    folds = train.k_fold(KEY, N, 4)
    one, other = (fit(folds=folds, epochs=0.2, strategy=strategy) for strategy in ("map", "vmap"))
    assert one.ts.step.tolist() == other.ts.step.tolist() == [1] * 4
    np.testing.assert_allclose(other.losses, one.losses, rtol=1e-5)
    assert_close(other.ts, one.ts)
    for name in ("validation_loss", "validation_accuracy"):
        np.testing.assert_allclose(other.history[0][name], one.history[0][name], rtol=1e-5)
    longer = fit(folds=folds, strategy="vmap")
    np.testing.assert_array_equal(longer.ts.step, fit(folds=folds).ts.step)
    assert (np.isfinite(longer.losses).sum(1) == longer.ts.step).all()


@STRATEGIES
def test_full_batch_of_rows_left_out(strategy, optimizing_compiler):
    """Each epoch is one step on all rows but one."""
    part, folds = take(DATA, np.arange(5)), train.leave_one_out(5)
    result = fit(FULL, part, folds=folds, strategy=strategy)
    assert result.losses.shape == (5, 3)
    if strategy == "map":
        assert_members_are_runs_on_their_rows(folds, result, FULL, part)
    else:
        assert_close(result.ts, fit(FULL, part, folds=folds).ts)


def test_bootstrap_members_are_runs_on_their_rows(optimizing_compiler):
    part = take(DATA, np.arange(9))
    folds = train.bootstrap(KEY, 9, 2)
    run = train.Run(nn.dense(2), losses.cross_entropy, optim.momentum(0.1), batch_size=3)
    assert_members_are_runs_on_their_rows(folds, fit(run, part, folds=folds), run, part)


@pytest.mark.filterwarnings("ignore:.*at least two classes")
def test_custom_rows(optimizing_compiler):
    """Rows that pad a table are not read, even if they do not exist. The full batch has only the rows of the member."""
    table, filled = np.array([[1, 4, 2, 99], [3, 0, 5, -1]]), np.array([[6, -7], [7, 8]])
    folds = train.Folds(train.Rows(table, np.array([3, 3])), train.Rows(filled, np.array([1, 2])))
    result = fit(FULL, folds=folds, epochs=4)
    assert result.losses.shape == (2, 4)
    assert_members_are_runs_on_their_rows(folds, result, FULL, DATA, epochs=4)


def test_validation_data_replace_the_held_out_rows():
    folds = train.leave_one_out(5)
    result = fit(FULL, take(DATA, np.arange(5)), folds=folds, validation=take(DATA, np.arange(5, 14)))
    alone = FULL.evaluate(index_tree(result.ts, 0), take(DATA, np.arange(5, 14)))
    np.testing.assert_allclose(result.history[-1]["validation_loss"][0], alone["loss"], rtol=1e-5)


def test_folds_of_fewer_rows_than_the_data_warn():
    with pytest.warns(UserWarning, match=f"folds contain only rows 0 … 9, but the data have {N} rows.*with n={N}"):
        fit(FULL, folds=train.k_fold(KEY, 10, 2), epochs=1)
    skipped = train.Folds.from_splits([([1, 2], [3, 4])])  # other rows are left out deliberately
    fit(FULL, folds=skipped, epochs=1)


# Mistakes ------------------------------------------------------------------------------------------------------------


def own(table=((0, 1), (2, 3)), sizes=(2, 2), held_out=((4,), (5,)), held_sizes=(1, 1)):
    return train.Folds(
        train.Rows(np.array(table), np.array(sizes)), train.Rows(np.array(held_out), np.array(held_sizes))
    )


MISTAKES = {
    "k": (lambda: train.k_fold(KEY, 5, 6), ValueError, "k must be in 2 … 5, the number of rows, got 6"),
    "one fold": (lambda: train.k_fold(KEY, 5, 1), ValueError, "k must be in 2 … 5"),
    "no rows": (lambda: train.k_fold(KEY, 0, 2), ValueError, "n must be ≥ 1, got 0"),
    "labels": (lambda: train.k_fold(KEY, 5, 2, stratify=[0, 1]), ValueError, r"one label for each row, \(5,\), got"),
    "key": (lambda: train.k_fold(0, 5, 2), TypeError, r"jax\.random\.key\(0\)"),
    "one row": (lambda: train.leave_one_out(1), ValueError, "n must be ≥ 2, got 1"),
    "all drawn": (lambda: train.bootstrap(KEY, 2, 50), ValueError, "a member drew all 2 rows, so none is left"),
    "members": (lambda: fit(folds=own(), members=3), ValueError, "got members=3 but 2 folds; omit members"),
    "no such row": (lambda: fit(folds=own(table=((0, 1), (2, 14)))), ValueError,
                    r"folds\.train: rows must be in 0 … 13, the rows of the data, got 0 … 14"),
    "negative": (lambda: fit(folds=own(held_out=((-1,), (5,)))), ValueError, r"folds\.held_out: rows must be in 0"),
    "sizes": (lambda: fit(folds=own(sizes=(2, 3))), ValueError, "sizes must be in 1 … 2, got 2 … 3"),
    "empty": (lambda: fit(folds=own(sizes=(2, 0))), ValueError, "sizes must be in 1 … 2, got 0 … 2"),
    "shapes": (lambda: fit(folds=own(sizes=(2,))), ValueError, r"table must be \(members, m\) and sizes \(members,\)"),
    "floats": (lambda: fit(folds=own(table=((0.0, 1.0), (2.0, 3.0)))), TypeError,
               "table and sizes must be integers, got float64 and int64"),
    "held out": (lambda: fit(folds=own(held_out=((4,),), held_sizes=(1,))), ValueError,
                 "train and validate the same number of members, got 2 and 1"),
    "rows only": (lambda: fit(folds=own().train), TypeError, r"must be train\.Folds\(train, held_out\), got Rows"),
    "no weight": (lambda: fit(data=DATA._replace(weights=jnp.zeros(N).at[:5].set(1.0)), folds=own()), ValueError,
                  "the weights of the 1 validation rows of member 1 are all 0"),
    "ragged full batch": (lambda: fit(FULL, folds=train.k_fold(KEY, N, 4)), ValueError,
                          "batch_size=None takes all rows of a fold at once, but members have 10 to 11"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.filterwarnings("ignore:fit. batch_size 4 is larger")
def test_mistakes_are_named(name):
    call, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.filterwarnings("ignore:fit. batch_size 4 is larger")
def test_scores_of_an_epoch_are_its_own_where_another_member_has_no_step_in_it():
    """Member 0 has 3 rows and batches of 4: two of its epochs may end at the same step."""
    seen = []
    folds = own(table=((0, 1, 2, 0, 0), (3, 4, 5, 6, 7)), sizes=(3, 5), held_out=((8, 9), (10, 11)), held_sizes=(2, 2))
    result = fit(folds=folds, epochs=5, callbacks=[lambda ts, record: seen.append(record)])
    told = [record["validation_loss"][1] for record in seen if "validation_loss" in record]
    logged = [record["validation_loss"][1] for record in result.history]
    assert logged == [score for i, score in enumerate(told) if i == 0 or score != told[i - 1]]
    assert len(set(logged)) == len(logged) == 5
