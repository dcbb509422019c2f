"""The order of the data: a bijection for each epoch, exact for every step, with the statistics of a random order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from cases import equations
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nnjax import data
from nnjax.data import _shuffle as shuffle

key = jax.random.key(0)
quick = settings(deadline=None, derandomize=True, max_examples=200)


@functools.cache
def streams(batch_size, largest=64, epochs=3):
    """Return the first places of the stream for every n from 1 to `largest`: (n, place)."""
    steps = jnp.arange(-(-largest * epochs // batch_size))
    batches = jax.vmap(lambda n: jax.vmap(lambda step: data.batch_indices(key, step, n, batch_size))(steps))
    return np.asarray(jax.jit(batches)(jnp.arange(1, largest + 1))).reshape(largest, -1)


@pytest.mark.parametrize("batch_size", [1, 3, 64, 150])
def test_every_epoch_is_a_permutation_for_every_n(batch_size):
    for n, stream in enumerate(streams(batch_size), 1):
        epochs = stream[: len(stream) // n * n].reshape(-1, n)
        assert len(epochs) >= 3
        np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(n), (len(epochs), 1)))


@pytest.mark.parametrize("batch_size", [3, 64, 150])
def test_stream_does_not_depend_on_the_batch_size(batch_size):
    length = 64 * 3
    np.testing.assert_array_equal(streams(batch_size)[:, :length], streams(1)[:, :length])


def test_epochs_and_keys_differ():
    two = streams(1)[63].reshape(-1, 64)[:3]
    assert len(np.unique(two, axis=0)) == 3
    other = jax.jit(data.batch_indices, static_argnums=3)(jax.random.key(1), 0, 64, 64)
    assert np.any(two[0] != other)


@functools.cache
def many_places():
    return jax.jit(lambda seed, epoch, place, n: shuffle.shuffle(jax.random.key(seed), epoch, place, n))


@quick
@given(
    n=st.integers(1, 2**31 - 1),
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(0, 2**32 - 1),
    start=st.integers(0, 2**31 - 1),
    stride=st.integers(1, 2**20),
)
@example(n=2**31 - 1, seed=0, epoch=2**32 - 1, start=2**31 - 600, stride=1)
@example(n=2**30 + 1, seed=0, epoch=0, start=0, stride=2**20)
@example(n=300, seed=0, epoch=0, start=0, stride=1)
def test_large_n_sampled_places_stay_apart_and_inside(n, seed, epoch, start, stride):
    places = [(start + i * stride) % n for i in range(256)]
    epochs = np.full(256, epoch, np.uint32)
    rows = np.asarray(many_places()(seed, epochs, np.asarray(places, np.uint32), np.uint32(n)))
    assert rows.max() < n
    assert len(set(rows.tolist())) == len(set(places))


@quick
@given(a=st.integers(0, 2**31 - 1), b=st.integers(1, 2**31 - 1), n=st.integers(1, 2**31 - 1))
@example(a=2**31 - 1, b=2**31 - 1, n=2**31 - 1)
@example(a=2**31 - 1, b=2**31 - 1, n=1)
@example(a=2**31 - 1, b=4096, n=2**31 - 2)
def test_epoch_and_place_are_exact(a, b, n):
    quotient, rest = shuffle._divmod_product(np.uint32(a), b, np.uint32(n))
    assert (int(quotient), int(rest)) == (a * b // n % 2**32, a * b % n)
    assert quotient.dtype == rest.dtype == np.uint32


@quick
@given(x=st.integers(0, 2**32 - 1), n=st.integers(1, 2**31 - 1))
@example(x=2**32 - 1, n=2**31 - 1)
def test_random_word_as_number_below_n_is_exact(x, n):
    assert int(shuffle._below(np.uint32(x), np.uint32(n))) == x * n >> 32


@functools.cache
def batch_and_places(batch_size):
    return jax.jit(lambda step, n: data.batch_indices(key, step, n, batch_size))


@quick
@given(step=st.integers(0, 2**31 - 1), n=st.integers(1, 2**31 - 1), batch_size=st.sampled_from([1, 7, 256]))
@example(step=2**31 - 1, n=2**31 - 1, batch_size=256)
@example(step=2**31 - 1, n=1, batch_size=256)
@example(step=2**31 - 1, n=3, batch_size=256)
@example(step=2**24 + 1, n=60_000, batch_size=256)
def test_batch_is_the_slice_of_the_stream_for_every_step(step, n, batch_size):
    positions = [divmod(step * batch_size + j, n) for j in range(256)]
    epochs = np.asarray([epoch % 2**32 for epoch, _ in positions], np.uint32)
    places = np.asarray([place for _, place in positions], np.uint32)
    expected = many_places()(0, epochs, places, np.uint32(n))[:batch_size]
    batch = batch_and_places(batch_size)(jnp.int32(step), jnp.int32(n))
    assert batch.dtype == jnp.int32
    np.testing.assert_array_equal(batch, expected)


def test_jit_vmap_and_traced_arguments_equal_plain_calls():
    plain = np.stack([data.batch_indices(key, step, 10, 4) for step in (5, 0)])
    jitted = jax.jit(data.batch_indices, static_argnames="batch_size")
    np.testing.assert_array_equal(plain, [jitted(key, step, 10, batch_size=4) for step in (5, 0)])
    steps = jnp.array([5, 0])
    np.testing.assert_array_equal(plain, jax.jit(jax.vmap(lambda step: jitted(key, step, 10, batch_size=4)))(steps))
    np.testing.assert_array_equal(plain, scanned(steps))
    keys, sizes = jax.random.split(key, 3), jnp.array([5, 9, 100])
    many = jax.jit(jax.vmap(lambda key, n: data.batch_indices(key, 2, n, 4)))(keys, sizes)
    np.testing.assert_array_equal(many, [jitted(k, 2, n, batch_size=4) for k, n in zip(keys, sizes, strict=True)])
    np.testing.assert_array_equal(plain[0], jitted(jax.random.key_data(key), 5, 10, batch_size=4))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(plain[0], jitted(key, 5, 10, batch_size=4))


@settings(quick, max_examples=15)  # calls without jit compile the loop each time
@given(step=st.integers(0, 2**31 - 1), n=st.integers(1, 2**31 - 1), batch_size=st.sampled_from([1, 7, 256]))
@example(step=2**31 - 1, n=256, batch_size=256)
@example(step=1, n=257, batch_size=256)
@example(step=2, n=8, batch_size=7)
@example(step=0, n=255, batch_size=256)
def test_epochs_of_a_batch_drawn_once_or_for_each_place_are_the_same(step, n, batch_size):
    known = data.batch_indices(key, step, n, batch_size)
    np.testing.assert_array_equal(known, batch_and_places(batch_size)(jnp.int32(step), jnp.int32(n)))


def scanned(steps):
    """Return the indices of several steps at once, as `Run.steps` computes them in a scan."""
    return jax.lax.scan(lambda c, step: (c, data.batch_indices(key, step, 10, 4)), 0, steps)[1]


def test_costs_as_much_as_the_batch_whatever_n_is():
    programs = [jax.make_jaxpr(lambda step, n=n: data.batch_indices(key, step, n, 64))(0) for n in (100, 10**9)]
    small, large = ([v.aval.size for e in equations(p.jaxpr) for v in (*e.invars, *e.outvars)] for p in programs)
    assert max(large) <= 64
    assert len(small) == len(large) > 50


# Statistics ----------------------------------------------------------------------------------------------------------


def orders(n, keys=10_000, epochs=4):
    """Return (keys, epochs, n), the order of each epoch of each key."""

    def one(key):
        epoch = jnp.repeat(jnp.arange(epochs, dtype=jnp.uint32), n)
        place = jnp.tile(jnp.arange(n, dtype=jnp.uint32), epochs)
        return shuffle.shuffle(key, epoch, place, jnp.uint32(n)).reshape(epochs, n)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), keys)), np.int64)


def p_value(first, second, n, possible):
    """Return the p-value of a chi-square test that all possible pairs of numbers below n are equally likely."""
    counts = np.zeros((n, n))
    np.add.at(counts, (first.ravel(), second.ravel()), 1)
    assert not counts[~possible].any()
    expected = counts.sum() / possible.sum()
    return scipy.stats.chi2.sf(((counts[possible] - expected) ** 2 / expected).sum(), possible.sum() - 1)


def positions(order):
    """Test that every row is at every place equally often. Permutations leave (n - 1)² degrees of freedom."""
    n = order.shape[-1]
    counts = np.zeros((n, n))
    np.add.at(counts, (np.broadcast_to(np.arange(n), order.shape), order), 1)
    expected = counts.sum() / n**2
    statistic = ((counts - expected) ** 2 / expected).sum() * (n - 1) / n
    return scipy.stats.chi2.sf(statistic, (n - 1) ** 2)


def neighbours(order):
    """Test that every row follows every other row equally often."""
    n, i = order.shape[-1], order.shape[-1] // 2
    return p_value(order[..., i - 1], order[..., i], n, ~np.eye(n, dtype=bool))


def next_epochs(order):
    """Test that the row at a place is independent of the row there in the next epoch."""
    n, i = order.shape[-1], order.shape[-1] // 2
    return p_value(order[:, :-1, i], order[:, 1:, i], n, np.ones((n, n), bool))


def next_keys(order):
    """Test that the row at a place is independent of the row there for the next key."""
    n, i = order.shape[-1], order.shape[-1] // 2
    return p_value(order[:-1, :, i], order[1:, :, i], n, np.ones((n, n), bool))


STATISTICS = [positions, neighbours, next_epochs, next_keys]


@pytest.mark.parametrize("n", [2, 3, 10, 64])
def test_order_is_indistinguishable_from_random(n):
    order = orders(n)
    assert all(statistic(order) > 1e-4 for statistic in STATISTICS)


def test_all_orders_of_four_are_equally_likely():
    _, counts = np.unique(orders(4).reshape(-1, 4), axis=0, return_counts=True)
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_eight_rounds_are_distinguishable_from_random(monkeypatch):
    monkeypatch.setattr(shuffle, "ROUNDS", 8)
    assert positions(orders(64)) < 1e-10


def test_a_round_swaps_half_of_the_pairs(monkeypatch):
    monkeypatch.setattr(shuffle, "ROUNDS", 1)
    moved = orders(64) != np.arange(64)
    assert abs(moved.mean() - 0.5 * (1 - 1 / 64)) < 0.005  # a place is its own partner in one of 64 cases


def test_statistics_find_orders_that_are_not_random():
    rng, n = np.random.default_rng(0), 10
    random = rng.permuted(np.tile(np.arange(n), (5000, 4, 1)), axis=-1)
    rotated = (np.arange(n) + rng.integers(0, n, (5000, 4, 1))) % n
    assert all(statistic(random) > 1e-4 for statistic in STATISTICS)
    assert neighbours(rotated) < 1e-10 < positions(rotated)
    assert next_epochs(np.repeat(random[:, :1], 4, axis=1)) < 1e-10
    assert next_keys(np.tile(random[:1], (5000, 1, 1))) < 1e-10
    assert positions(np.sort(random)) < 1e-10


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.batch_indices(key, 0, 10, 0), ValueError, "batch_size must be ≥ 1, got 0"),
        (lambda: data.batch_indices(key, 0, 10, -3), ValueError, "batch_size must be ≥ 1, got -3"),
        (lambda: data.batch_indices(key, 0, 10, 2.5), TypeError, "batch_size must be an integer, got 2.5"),
        (lambda: data.batch_indices(key, 0, 0, 4), ValueError, "n must be ≥ 1, got 0"),
        (lambda: data.batch_indices(0, 0, 10, 4), TypeError, r"use jax.random.key\(0\)"),
        (lambda: data.batch_indices(jax.random.split(key, 2), 0, 10, 4), ValueError, "vmap for several keys"),
    ],
)
def test_invalid_arguments(call, error, message):
    with pytest.raises(error, match=f"^batch_indices: .*{message}"):
        call()
