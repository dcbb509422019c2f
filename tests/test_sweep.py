"""Sweeps: each setting is the run made from its numbers, and the table ranks them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from train_runs import DATA, HELD_OUT, KEY, SWEPT, X, assert_close, assert_equal, make_swept, sweep

from nnjax import losses, nn, optim, train
from nnjax.train.engine.ensemble import index_tree

STRATEGIES = pytest.mark.parametrize("strategy", ["map", "vmap"])


def linear(hyper):
    return train.Run(nn.dense(2), losses.cross_entropy, optim.momentum(hyper["rate"]), batch_size=None)


def widths(hyper):
    return train.Run(nn.mlp([8], 2, widths=[hyper["w"]]), losses.cross_entropy, optim.sgd(0.1), batch_size=4)


# Settings ------------------------------------------------------------------------------------------------------------


@STRATEGIES
def test_a_setting_is_the_run_made_from_its_numbers(strategy):
    """To rounding: in the run the numbers are constants, and the compiler computes with them beforehand."""
    many = sweep(strategy=strategy, epochs=0.5).result
    i = 2
    run = make_swept({name: values[i] for name, values in SWEPT.items()})
    alone = train.fit(run, DATA, epochs=0.5, validation=HELD_OUT, key=KEY, progress=False)
    np.testing.assert_allclose(many.losses[i], alone.losses, rtol=1e-4)
    assert_close(index_tree(many.ts, i), alone.ts, rtol=1e-4)
    for name in ("validation_loss", "validation_accuracy"):
        np.testing.assert_allclose(many.history[0][name][i], alone.history[0][name], rtol=1e-4)


def test_settings_draw_the_same():
    """The first loss of runs that differ only later."""
    result = sweep(linear, {"rate": [0.1, 0.2]}).result
    assert result.losses[0, 0] == result.losses[1, 0]
    assert result.losses[0, 1] != result.losses[1, 1]


def test_widths():
    """Two widths side by side; the full one is the plain network, and the padding of the other stays zero."""

    def wide(hyper):
        return train.Run(
            nn.mlp([6], 2, widths=[hyper["width"]]), losses.cross_entropy, optim.adam(0.01), batch_size=None
        )

    result = sweep(wide, {"width": [2, 6]}).result
    narrow = index_tree(result.ts.params, 0)
    first, last = narrow[1]["w"], narrow[-1]["w"]
    assert np.count_nonzero(first) == 3 * 2
    assert np.count_nonzero(last) == 2 * 2
    plain = train.Run(nn.mlp([6], 2), losses.cross_entropy, optim.adam(0.01), batch_size=None)
    alone = train.fit(plain, DATA, epochs=2, key=KEY, progress=False)
    assert_close(index_tree(result.ts.params, 1), alone.ts.params, 1e-4)


def halved(rate):
    return float(rate) / 2


PEAK = optax.warmup_cosine_decay_schedule(0.0, 1.0, 1, 4)
SCHEDULES = {  # arguments that optax's schedules do not branch on
    "linear": lambda h: optax.linear_schedule(h, 0.0, 4),
    "cosine": lambda h: optax.cosine_decay_schedule(h, 4, alpha=0.1),
    "exponential": lambda h: optax.exponential_decay(h, 4, 0.9),
    "joined": lambda h: optax.join_schedules([optax.constant_schedule(h), optax.linear_schedule(h, 0.0, 5)], [2]),
    "scaled": lambda h: lambda step: h * PEAK(step),
}
BRANCHES = {
    "warmup_cosine_decay_schedule": lambda h: optax.warmup_cosine_decay_schedule(0.0, h, 1, 4),
    "exponential_decay": lambda h: optax.exponential_decay(0.1, 4, h),
    "piecewise_constant_schedule": lambda h: optax.piecewise_constant_schedule(0.1, {2: h}),
    "halved": halved,
}


def scheduled(schedule):
    return lambda hyper: train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(schedule(hyper["h"])), batch_size=None)


@pytest.mark.parametrize("name", SCHEDULES)
def test_arguments_of_schedules_are_swept(name):
    make = scheduled(SCHEDULES[name])
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules need it
        result = sweep(make, {"h": [0.1, 0.3]}, epochs=3).result
        alone = train.fit(make({"h": 0.3}), DATA, epochs=3, key=KEY, progress=False)
    np.testing.assert_allclose(result.losses[1], alone.losses, rtol=1e-5)
    assert result.losses[0, -1] != result.losses[1, -1]


@pytest.mark.parametrize("name", BRANCHES)
def test_schedules_that_branch_on_a_swept_argument_are_named(name):
    message = (
        rf'make_run: \w*{name}\w* \(line \d+ of .*\.py\) needs a hyper-parameter as a Python number.*hyper\["rate"\] \*'
    )
    with jax.numpy_dtype_promotion("standard"), pytest.raises(TypeError, match=message):
        sweep(scheduled(BRANCHES[name]), {"h": [0.1, 0.3]})


READS_RATE = {
    "by name": lambda hyper: linear({"rate": hyper["rate"]}),
    "by get": lambda hyper: linear({"rate": hyper.get("rate", 0.1)}),
    "in the objective": lambda hyper: train.Run(
        nn.dense(2),
        objective=lambda params, state, batch, *, train, key: (hyper["rate"] * batch.x[:, 0], state, {}),
        optimizer=optim.sgd(0.1),
        batch_size=4,
    ),
}
READS_ALL = {
    "**": lambda hyper: linear({**hyper}),
    "|": lambda hyper: linear(hyper | {"rate": 0.1}),
    "dict": lambda hyper: linear(dict(hyper)),
    "call": lambda hyper: linear(dict(**hyper)),
    "items": lambda hyper: linear({name: value for name, value in hyper.items()}),  # noqa: C416
    "tree": lambda hyper: linear(jax.tree.map(jnp.exp, hyper)),
}


@pytest.mark.parametrize("name", READS_RATE)
def test_a_hyper_parameter_that_no_run_reads_is_a_warning(name):
    with pytest.warns(UserWarning, match=r"sweep: make_run does not read decay, .* hyper\['decay'\]"):
        sweep(READS_RATE[name], {"rate": [0.1, 0.2], "decay": [0.0, 0.1]}, steps=1, epochs=None)
    sweep(READS_RATE[name], {"rate": [0.1, 0.2]}, steps=1, epochs=None)


@pytest.mark.parametrize("name", READS_ALL)
def test_a_copy_reads_all_hyper_parameters(name):
    sweep(READS_ALL[name], {"rate": [0.1, 0.2], "decay": [0.0, 0.1]}, steps=1, epochs=None)


def test_a_missing_hyper_parameter_is_explained():
    with pytest.raises(KeyError) as error:
        sweep(linear, {"lr": [0.1]})
    assert "make_run reads 'rate', but hyper has only lr" in error.value.__notes__


# The table -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:sweep. make_run does not read tag")
def test_the_table_is_sorted_by_validation_loss():
    table, result = sweep(linear, {"rate": [0.001, 0.3, 0.03], "tag": [7, 8, 9]})
    last = result.history[-1]
    order = np.argsort(last["validation_loss"])
    assert [row["tag"] for row in table] == [[7, 8, 9][i] for i in order]
    for row, i in zip(table, order, strict=True):
        assert row == {
            "rate": [0.001, 0.3, 0.03][i], "tag": 7 + i, "loss": last["loss"][i],
            "validation_loss": last["validation_loss"][i], "diverged": 0,
        }  # fmt: skip
    assert isinstance(table[0]["tag"], int)


def test_seeds_are_averaged():
    rates, keys = [0.3, 0.03], jax.random.split(KEY, 3)
    table, result = sweep(linear, {"rate": rates}, seeds=3)
    assert result.losses.shape == (6, 2)
    for s, key in enumerate(keys):
        one = sweep(linear, {"rate": rates * 3}, key=key).result  # of six members too
        for i in range(2):
            assert_equal(index_tree(result.ts, 3 * i + s), index_tree(one.ts, i))
    scores = result.history[-1]["validation_loss"].reshape(2, 3)
    for row in table:
        own = scores[rates.index(row["rate"])]
        assert row["validation_loss"] == pytest.approx(own.mean())
        assert row["validation_loss_sd"] == pytest.approx(own.std(ddof=1))
    assert table[0]["validation_loss"] < table[1]["validation_loss"]


def test_settings_that_diverged_come_last():
    def unstable(hyper):
        return train.Run(nn.dense(1), losses.squared_error, optim.sgd(hyper["rate"]), batch_size=None)

    with pytest.warns(RuntimeWarning, match=r"loss of step \d+ of member 0") as caught:
        table, result = train.sweep(
            unstable, {"rate": [1e6, 0.001, 0.01]}, (X, X[:, :1]), validation=(X, X[:, :1]), epochs=20, progress=False
        )
    assert len(caught) == 1
    assert [(row["rate"], row["diverged"]) for row in table] == [(0.01, 0), (0.001, 0), (1e6, 1)]
    assert result.diverged[0] >= 0


@pytest.mark.filterwarnings("ignore:fit. the loss of step:RuntimeWarning")
def test_a_setting_that_diverged_comes_last_even_with_the_best_network():
    def spiking(hyper):
        rate = lambda count: jnp.where((hyper["spike"] > 0) & (count == 12), 1e30, hyper["rate"])  # noqa: E731
        return train.Run(nn.dense(1), losses.squared_error, optim.sgd(rate), batch_size=4)

    examples = (X, X[:, :1])
    hyper = {"rate": [0.1, 1e-6], "spike": [1.0, 0.0]}
    table, result = train.sweep(spiking, hyper, examples, validation=examples, epochs=5, patience=9, progress=False)
    assert result.best.score[0] < result.best.score[1]
    assert [(row["spike"], row["diverged"]) for row in table] == [(0, 0), (1, 1)]


def test_with_patience_networks_are_ranked_at_their_best():
    table, result = sweep(epochs=5, patience=1)
    assert result.stopped.any()
    best = sorted(np.asarray(result.best.score).tolist())
    assert [row["best_validation_loss"] for row in table] == pytest.approx(best)
    assert all(math.isfinite(row["loss"]) for row in table)


# Settings that are chosen --------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(max_size=3), st.lists(st.integers(-9, 9), min_size=1, max_size=3), min_size=1,
                       max_size=3))  # fmt: skip
def test_grid_is_every_combination(choices):
    found = train.grid(choices)
    rows = list(zip(*(found[name].tolist() for name in choices), strict=True))
    assert len(rows) == math.prod(len(values) for values in choices.values())
    assert list(found) == list(choices)
    expected = [()]
    for values in choices.values():
        expected = [(*row, value) for row in expected for value in values]
    assert rows == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99).map(jax.random.key), st.floats(1e-6, 1e3), st.floats(1.0, 1e4), st.integers(-5, 5),
       st.integers(0, 9))  # fmt: skip
def test_random_search_stays_in_its_ranges(key, low, factor, least, more):
    high = low * factor
    ranges = {"a": (low, high), "b": (low, high, "log"), "c": (least, least + more, "int")}
    found = train.random_search(key, 50, ranges)
    for name in ("a", "b"):
        assert found[name].shape == (50,)
        assert (found[name] >= low * (1 - 1e-9)).all()
        assert (found[name] <= high * (1 + 1e-9)).all()
    assert found["c"].min() >= least
    assert found["c"].max() <= least + more
    assert np.issubdtype(found["c"].dtype, np.integer)


def test_random_search_spreads_evenly():
    found = train.random_search(KEY, 4000, {"a": (2.0, 4.0), "b": (1e-4, 1e-1, "log"), "c": (1, 4, "int")})
    assert abs(found["a"].mean() - 3) < 0.05
    assert abs(np.log10(found["b"]).mean() + 2.5) < 0.05
    np.testing.assert_allclose(np.bincount(found["c"])[1:] / 4000, 0.25, atol=0.03)
    assert abs(np.corrcoef(found["a"], found["c"])[0, 1]) < 0.05


# Mistakes ------------------------------------------------------------------------------------------------------------


def sized(hyper):
    return train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(1), batch_size=hyper["b"])


def branching(hyper):
    return train.Run(
        nn.dense(2), losses.cross_entropy, optim.sgd(0.1 if hyper["rate"] > 0.05 else 0.2), batch_size=None
    )


MISTAKES = {
    "lengths": (lambda: sweep(linear, {"rate": [1, 2], "b": [1]}), ValueError,
                r"one value for each setting, got \{'rate': 2, 'b': 1\}; combine with train\.grid"),
    "a run": (lambda: sweep(linear({"rate": 0.1}), {"rate": [1]}), TypeError, "make_run must be a function"),
    "no function": (lambda: sweep(3, {"rate": [1]}), TypeError, "make_run must be a function .* got 3"),
    "no run": (lambda: sweep(lambda hyper: None, {"rate": [1]}), TypeError, r"its result must be a train\.Run"),
    "nothing": (lambda: sweep(linear, {}), TypeError, "a dictionary with at least one name"),
    "a number": (lambda: sweep(linear, {"rate": 0.1}), ValueError, r"rate must be a list of numbers, got 0\.1"),
    "no value": (lambda: sweep(linear, {"rate": []}), ValueError, r"rate must be a list of numbers, got \[\]"),
    "words": (lambda: sweep(linear, {"rate": ["low"]}), ValueError, "rate must be a list of numbers"),
    "seeds": (lambda: sweep(linear, {"rate": [1]}, seeds=0), ValueError, "seeds must be ≥ 1, got 0"),
    "key": (lambda: sweep(linear, {"rate": [1]}, key=0), TypeError, r"jax\.random\.key\(0\)"),
    "batch": (lambda: sweep(sized, {"b": [2]}), TypeError, "batch_size must be an integer"),
    "rate": (lambda: sweep(linear, {"rate": [-1.0, 0.1]}), ValueError, "learning_rate must be .* got -1"),
    "a later rate": (lambda: sweep(linear, {"rate": [0.1, -1.0]}), ValueError, "learning_rate must be .* got -1"),
    "a width": (lambda: sweep(widths, {"w": [4, 300]}), ValueError, r"300"),
    "too large": (lambda: sweep(linear, {"rate": [2**33, 1]}), ValueError, "8589934592 does not fit into int32"),
    "a column": (lambda: sweep(linear, {"rate": [1], "loss": [1]}), ValueError, "'loss' is a column of the result"),
    "not ranked": (lambda: sweep(linear, {"rate": [1]}, validation=None), ValueError, "pass validation="),
    "half an int": (lambda: train.random_search(KEY, 2, {"a": (1.5, 3.5, "int")}), ValueError, "integers for int"),
    "NaN": (lambda: train.random_search(KEY, 2, {"a": (float("nan"), 1)}), ValueError, "a must have low ≤ high"),
    "NaN int": (lambda: train.random_search(KEY, 2, {"a": (float("nan"), 1, "int")}), ValueError, "a must have low"),
    "four": (lambda: train.random_search(KEY, 2, {"a": (1, 2, "log", 3)}), ValueError, r"\(low, high, kind\)"),
    "kind": (lambda: train.random_search(KEY, 2, {"a": (1, 2, "lin")}), ValueError, "unknown kind of a 'lin'"),
    "order": (lambda: train.random_search(KEY, 2, {"a": (2, 1)}), ValueError, "a must have low ≤ high"),
    "log of 0": (lambda: train.random_search(KEY, 2, {"a": (0, 1, "log")}), ValueError, "positive for log"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    call, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message):
        call()


def test_the_setting_that_is_wrong_is_named():
    with pytest.raises(ValueError, match="got -1") as caught:
        sweep(linear, {"rate": [0.1, -1.0]})
    assert caught.value.__notes__ == ["in setting 1 of sweep: rate=-1"]


@STRATEGIES
def test_branching_on_a_traced_number_says_where_and_what_to_do(strategy):
    with pytest.raises(TypeError, match=r"branching .* needs a hyper-parameter as a Python number") as caught:
        sweep(branching, {"rate": [0.1, 0.01]}, strategy=strategy)
    notes = caught.value.__notes__
    assert any("make_run, whose hyper-parameters are traced" in note and "do not branch" in note for note in notes)
