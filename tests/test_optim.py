"""Our optimizers equal optax's, keep optax's protocol, and have clear error messages: one test per property."""

import functools
import inspect
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import OPTIMIZERS, directional_derivatives, optimizer_params, over, promoting, random_like

from nnjax import optim

STEPS = 1000


SMALL = {"w": jnp.array([0.3, -0.4, 0.5, 2.0]), "b": (jnp.array(-0.7), None)}


def scripted_gradients(steps=STEPS, dtype=jnp.float32, params=None):
    """Gradients of 15 magnitudes inside each leaf, in several patterns of time: they reveal any difference in eps."""
    rng = np.random.default_rng(1)
    t = np.arange(steps)
    patterns = np.stack(
        [
            np.ones(steps),
            np.where(t % 2, 1.0, -1.0),
            np.where(t == 3, 1.0, 0.0),
            np.where(t >= steps // 2, 1.0, 0.0),
            0.99**t,
            *rng.normal(size=(5, steps)),
        ],
        axis=1,
    )

    def script(leaf):
        which = rng.integers(0, patterns.shape[1], leaf.shape)
        magnitude = 10.0 ** rng.uniform(-12, 3, leaf.shape)
        return jnp.asarray(patterns[:, which] * magnitude, dtype)

    return jax.tree.map(script, optimizer_params() if params is None else params)


def updates_of(optimizer, grads, params):
    """Return all updates for scripted gradients, which do not depend on the updates: rounding errors do not grow."""

    def step(state, g):
        updates, state = optimizer.update(g, state, params)
        return state, updates

    return jax.lax.scan(step, optimizer.init(params), grads)


def largest_difference(ours, theirs, dtype=jnp.float32, steps=STEPS, params_dtype=None):
    """Return the largest difference of an element's updates, relative to its largest update."""
    grads, params = scripted_gradients(steps, dtype), optimizer_params(params_dtype or dtype)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        turns = np.exp(1j * np.random.default_rng(6).uniform(0, 7, steps))
        grads = jax.tree.map(lambda g: g * turns.reshape(-1, *[1] * (g.ndim - 1)).astype(dtype), grads)
    both = jax.jit(lambda grads: [updates_of(optimizer, grads, params)[1] for optimizer in (ours, theirs)])
    leaves, expected = map(jax.tree.leaves, both(grads))
    assert all(a.dtype == dtype for a in leaves)
    worst = 0.0
    for a, b in zip(leaves, expected, strict=True):
        wide = np.promote_types(dtype, np.float64)
        a, b = np.asarray(a, wide), np.asarray(b, wide)  # noqa: PLW2901
        assert np.isfinite(a).all()
        assert np.abs(b).max() > 0
        largest = np.abs(b).max(0)
        worst = max(worst, np.max(np.abs(a - b).max(0) / np.where(largest == 0, 1.0, largest)))
    return worst


def random_rate(count):
    """A different learning rate at each step: it reveals a rate that is late by a step, or inside the velocity."""
    return jnp.asarray(np.random.default_rng(3).uniform(0.01, 1.0, STEPS))[count]


def differences(case):
    """Return the largest relative differences in (float32, float64)."""
    with jax.enable_x64(False):
        single = largest_difference(case.ours(0.1, **case.hyper), case.optax(0.1, **case.hyper))
    with jax.enable_x64(True):
        double = largest_difference(
            case.ours(random_rate, **case.hyper), case.optax(random_rate, **case.hyper), jnp.float64
        )
    return single, double


def tree_types(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, jnp.dtype(leaf.dtype), leaf.weak_type), tree)


def states_with(state, field):
    """Return the values of a field anywhere in an optax state."""
    return [value for _, value in optax.tree.get_all_with_path(state, field)]


@over(OPTIMIZERS)
def test_updates_equal_those_of_optax(case):
    single, double = differences(case)
    assert single < 2e-6
    assert double < 1e-12


@pytest.mark.parametrize(
    "wrong",
    [
        lambda lr: optax.adam(lr, eps=1.1e-8),
        lambda lr: optax.adam(lr, eps=0.0, eps_root=1e-16),
        lambda lr: optax.adam(lr, b2=0.99901),
        lambda lr: optax.adam(lr * (1 + 1e-5)),
        optax.nadam,
    ],
    ids=["eps", "eps inside", "b2", "rate", "nadam"],
)
def test_comparison_tells_optimizers_apart(wrong):
    assert largest_difference(optim.adam(0.1), promoting(wrong)(0.1), steps=20) > 4e-6


@over(OPTIMIZERS)
def test_traced_hyper_parameters_in_a_chain_equal_those_of_optax(case):
    """jit of vmap over all hyper-parameters at once, of a scan, of a chain."""
    grads, params = scripted_gradients(10, params=SMALL), SMALL
    shrink = jnp.array([1.0, 0.9, 0.5])

    def run(make, factor):
        hyper = {name: value * factor for name, value in case.hyper.items()}
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), make(0.1 * factor, **hyper), optax.scale(0.5))
        return updates_of(optimizer, grads, params)[1]

    both = [jax.vmap(functools.partial(run, make)) for make in (case.ours, case.optax)]
    ours, theirs = jax.jit(lambda factor: [f(factor) for f in both])(shrink)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-9)
    assert np.ptp(np.asarray(ours["w"]), axis=0).max() > 0


@over(OPTIMIZERS)
def test_jit_equals_eager(case):
    params, grads = SMALL, jax.tree.map(lambda g: g[0], scripted_gradients(1, params=SMALL))
    optimizer = case.ours(0.1, **case.hyper)
    state = optimizer.init(params)
    chex.assert_trees_all_close(
        jax.jit(optimizer.update)(grads, state, params), optimizer.update(grads, state, params), rtol=1e-6, atol=1e-12
    )


@over(OPTIMIZERS)
def test_gradients_through_the_updates_equal_finite_differences(case):
    with jax.enable_x64(True):
        params = {"w": jnp.asarray([0.5, -1.0, 2.0])}
        grads = {"w": jnp.asarray(np.random.default_rng(4).normal(size=(3, 3)))}

        def f(at):
            hyper = {name: value + shift for (name, value), shift in zip(case.hyper.items(), at["hyper"], strict=True)}
            hyper = {name: jnp.minimum(value, 0.98) for name, value in hyper.items()}
            updates = updates_of(case.ours(at["rate"], **hyper), at["grads"], params)[1]
            return sum(jnp.vdot(random_like(u, 5), u) for u in jax.tree.leaves(updates))

        at = {"rate": jnp.asarray(0.1), "grads": grads, "hyper": [jnp.asarray(1e-2)] * len(case.hyper)}
        exact, numerical = directional_derivatives(f, at)
        np.testing.assert_allclose(exact, numerical, rtol=1e-4)


# optax's conventions -------------------------------------------------------------------------------------------------


@over(OPTIMIZERS)
def test_complex_updates_equal_those_of_optax(case):
    """|g|² is the second moment, not g²; for lion, the sign of z is z / |z|."""
    with jax.enable_x64(True):
        for dtype, bound in ((jnp.complex64, 4e-6), (jnp.complex128, 1e-12)):
            ours, theirs = case.ours(random_rate, **case.hyper), case.optax(random_rate, **case.hyper)
            assert largest_difference(ours, theirs, dtype, steps=40) < bound


@over(OPTIMIZERS)
def test_second_moments_of_complex_parameters_are_real(case):
    params = {"z": jnp.ones(2, jnp.complex64), "w": jnp.ones(3)}
    optimizer = case.ours(0.1, **case.hyper)
    state = optimizer.init(params)
    updates, new = optimizer.update(params, state, params)
    assert tree_types(updates) == tree_types(params)
    assert tree_types(new) == tree_types(state)
    for field in case.moments:
        real = field in ("nu", "sum_of_squares")
        assert getattr(state, field)["z"].dtype == (jnp.float32 if real else jnp.complex64)


def test_complex_parameters_reach_the_minimum():
    """With the conjugate of `jax.grad`, which is the direction of steepest ascent."""
    goal = jnp.array([3 - 4j, 1 + 2j])
    optimizer = optim.adam(0.1)

    def step(carry, _):
        z, state = carry
        gradient = jax.grad(lambda z: (jnp.abs(z - goal) ** 2).sum())(z).conj()
        updates, state = optimizer.update(gradient, state)
        return (z + updates, state), None

    z = jnp.zeros(2, jnp.complex64)
    (z, _), _ = jax.lax.scan(step, (z, optimizer.init(z)), length=500)
    np.testing.assert_allclose(z, goal, rtol=1e-3)


@over(OPTIMIZERS)
def test_extra_arguments_are_taken_as_by_optax(case):
    optimizer, params = case.ours(0.1, **case.hyper), SMALL
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)
    state = optimizer.init(params)
    expected = optimizer.update(params, state, params)
    chex.assert_trees_all_equal(optimizer.update(params, state, params, value=1.0, grad=params, other=None), expected)
    averaging = optim.params_ema()
    averaging.update(params, averaging.init(params), params, value=1.0)


MOMENTS = {  # (ours, optax's, the field whose dtype is an option)
    "adam": (optim.adam, optax.adam, "mu"),
    "adamw": (optim.adamw, optax.adamw, "mu"),
    "nadam": (optim.nadam, optax.nadam, "mu"),
    "lion": (optim.lion, optax.lion, "mu"),
    "momentum": (optim.momentum, functools.partial(optax.sgd, momentum=0.9), "trace"),
    "nesterov": (optim.nesterov, functools.partial(optax.sgd, momentum=0.9, nesterov=True), "trace"),
}


@pytest.mark.parametrize("name", MOMENTS)
@pytest.mark.parametrize(
    ("dtype", "params_dtype"),
    [("bfloat16", "float32"), ("float64", "float32"), ("complex64", "complex128")],
)
def test_moments_are_stored_in_their_own_dtype(name, dtype, params_dtype):
    ours, theirs, field = MOMENTS[name]
    option = {"accumulator_dtype" if field == "trace" else "mu_dtype": dtype}
    with jax.enable_x64(True):
        optimizer, reference = ours(0.1, **option), promoting(theirs)(0.1, **option)
        state = optimizer.init(optimizer_params(params_dtype))
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(getattr(state, field)))
        if (name, dtype) == ("lion", "bfloat16"):
            return  # rounding changes the sign of a direction near 0
        # bfloat16 has 8 bits, and a rounding error of a moment is one of the update
        bound = 0.02 if dtype == "bfloat16" else 3e-6
        assert largest_difference(optimizer, reference, jnp.dtype(params_dtype), steps=40) < bound


def test_small_moments_keep_float32_arithmetic():
    """1 - 0.999 would be 0 in bfloat16."""
    optimizer = optim.adam(1e-3, b1=0.999, mu_dtype="bfloat16")
    state = optimizer.init(jnp.zeros(1))
    for _ in range(3):
        updates, state = optimizer.update(jnp.ones(1), state)
        np.testing.assert_allclose(updates, -1e-3, rtol=0.02)


@pytest.mark.parametrize("name", MOMENTS)
def test_dtypes_of_moments_that_cannot_hold_them_are_named(name):
    ours, _, field = MOMENTS[name]
    option = "accumulator_dtype" if field == "trace" else "mu_dtype"
    for dtype in ("int8", "bool"):
        with pytest.raises(
            TypeError, match=rf"^{name}: the dtype of moments must be floating-point or complex, got {dtype}"
        ):
            ours(0.1, **{option: dtype})
    with pytest.raises(TypeError, match=rf"^{name}: expected a dtype such as jnp.bfloat16 for the moments, got 0.5"):
        ours(0.1, **{option: 0.5})
    z = jnp.ones(2, jnp.complex64)
    optimizer = ours(0.1, **{option: "float32"})
    with pytest.raises(TypeError, match=f"is complex64, {field} is float32; both must be real or both complex"):
        optimizer.update(z, optimizer.init(z), z)


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_weight_decay_may_be_a_schedule(name):
    schedule = optax.linear_schedule(0.5, 0.0, 20)
    ours, theirs = (
        make(0.1, weight_decay=schedule) for make in (getattr(optim, name), promoting(getattr(optax, name)))
    )
    assert largest_difference(ours, theirs, steps=40) < 2e-6


def test_nesterov_of_rmsprop_needs_momentum():
    with pytest.raises(ValueError, match="rmsprop: nesterov=True needs momentum, as in"):
        optim.rmsprop(0.1, nesterov=True)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias_correction": True},
        {"eps_in_sqrt": False},
        {"initial_scale": 1.0},
        {"momentum": 0.9, "nesterov": True},
    ],
    ids=str,
)
def test_centered_rmsprop_equals_that_of_optax(options, dtype):
    """It has no row in the table, because v - m² of constant gradients is rounding error."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(7)
        grads = rng.normal(size=(60, 8)) + (1j * rng.normal(size=(60, 8)) if dtype == "complex128" else 0)
        grads = jnp.asarray(grads * 10.0 ** rng.uniform(-6, 1, 8))
        ours, theirs = (
            updates_of(make(0.1, centered=True, eps=1e-4, **options), grads, jnp.zeros(8, dtype))[1]
            for make in (optim.rmsprop, promoting(optax.rmsprop))
        )
        assert len(np.unique(ours)) == ours.size
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_centered_rmsprop_of_constant_gradients_stays_finite():
    """The variance is 0, and rounding can make v - m² negative: optax gives NaN."""
    optimizer = optim.rmsprop(1e-3, centered=True)
    _, updates = updates_of(optimizer, jnp.full((300, 7), 1e3) * jnp.linspace(0.9, 1.1, 7)[None], jnp.zeros(7))
    assert np.isfinite(updates).all()


@over(OPTIMIZERS)
def test_optax_injects_hyper_parameters(case, usual_promotion):
    """Straight from the factory: options such as eps_in_sqrt and mu_dtype stay what they are."""
    make, options = getattr(case.ours, "func", case.ours), getattr(case.ours, "keywords", {})
    params = {"w": jnp.array([1.0, -2.0])}
    static = [name for name in options if name == "mask"]
    injected = optax.inject_hyperparams(make, static)(0.1, **case.hyper, **options)
    plain = case.ours(0.1, **case.hyper)
    state = injected.init(params)
    updates, state = jax.jit(injected.update)(params, state, params, value=1.0)
    chex.assert_trees_all_close(updates, plain.update(params, plain.init(params), params)[0], rtol=1e-4)  # from float32
    assert set(state.hyperparams) >= {"learning_rate", *case.hyper}
    optax.tree.map_params(injected, lambda p: p, state)


@over(OPTIMIZERS)
def test_partition_freezes_some_parameters(case, usual_promotion):
    params = {"w": jnp.array([1.0, -2.0]), "n": jnp.array([3])}
    labels = {"w": "train", "n": "freeze"}
    optimizer = optax.partition({"train": case.ours(0.1, **case.hyper), "freeze": optax.set_to_zero()}, labels)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert updates["n"] == 0
    assert (updates["w"] != 0).all()


DTYPES = ("bfloat16", "float16", "float32", "float64")

# Hyper-parameters of every kind, from Python floats. `factor` is a traced 1.
KINDS = {
    "float": lambda value, factor: value,
    "numpy": lambda value, factor: np.float64(value),
    "array": lambda value, factor: jnp.asarray(value, jnp.float32),
    "traced": lambda value, factor: value * factor,
}
SCHEDULES = {
    "schedule": optax.linear_schedule(0.1, 0.0, 5),
    "schedule of numpy": lambda count: np.float64(0.1),
}


@over(OPTIMIZERS)
@pytest.mark.parametrize("kind", [*KINDS, *SCHEDULES])
def test_dtypes_and_form_of_updates_and_state_are_kept(case, kind):
    """Leaves of four dtypes in one tree: each keeps its own."""
    convert = KINDS.get(kind, KINDS["float"])
    with jax.enable_x64(True):
        params = {dtype: optimizer_params(dtype) for dtype in DTYPES}

        def first_update(factor):
            rate = SCHEDULES.get(kind, convert(0.1, factor))
            optimizer = case.ours(rate, **{name: convert(value, factor) for name, value in case.hyper.items()})
            state = optimizer.init(params)
            return state, *optimizer.update(params, state, params)

        state, updates, new = jax.eval_shape(first_update, jnp.ones((), jnp.float32))
        assert tree_types(updates) == tree_types(params)
        assert tree_types(new) == tree_types(state)
        assert state.count.dtype == jnp.int32
        for field in case.moments:
            assert tree_types(getattr(state, field)) == tree_types(params)


@over(OPTIMIZERS)
def test_16_bits_are_computed_in_32(case):
    """In bfloat16 0.999 is 1, so that an average with this decay would never move."""
    params = {"w": jnp.asarray([1.5, -0.25, 3.0], jnp.bfloat16)}
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    (updates, state), (exact, reference) = (
        (optimizer := case.ours(0.1, **case.hyper)).update(tree, optimizer.init(tree), tree) for tree in (params, wide)
    )
    for field, value in [("w", updates["w"]), *((name, getattr(state, name)["w"]) for name in case.moments)]:
        expected = exact["w"] if field == "w" else getattr(reference, field)["w"]
        np.testing.assert_array_equal(value, expected.astype(jnp.bfloat16), err_msg=field)


def test_adagrad_does_not_move_where_every_gradient_was_0():
    optimizer = optim.adagrad(0.1, 0.0, 0.0)
    updates, _ = optimizer.update(jnp.array([0.0, 2.0]), optimizer.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [0.0, -0.1], rtol=1e-6)


@over(OPTIMIZERS)
def test_state_has_the_fields_of_optax_and_their_values(case):
    params, grads = SMALL, jax.tree.map(lambda g: g[0], scripted_gradients(1, params=SMALL))
    ours, theirs = case.ours(0.1, **case.hyper), case.optax(0.1, **case.hyper)
    _, state = ours.update(grads, ours.init(params), params)
    _, reference = theirs.update(grads, theirs.init(params), params)
    assert {name for name, value in state._asdict().items() if jax.tree.leaves(value)} == {"count", *case.moments}
    assert state.count == 1
    for our_name, their_name in case.moments.items():
        (value,) = states_with(reference, their_name)
        chex.assert_trees_all_close(getattr(state, our_name), value, rtol=1e-5)


@over(OPTIMIZERS)
def test_counter_stays_at_the_largest_int32(case):
    params, last = {"w": jnp.ones(2)}, jnp.asarray(2**31 - 1, jnp.int32)
    optimizer = case.ours(optax.constant_schedule(0.1), **case.hyper)
    updates, state = optimizer.update(params, optimizer.init(params)._replace(count=last), params)
    assert state.count == last
    assert np.isfinite(updates["w"]).all()


@over(OPTIMIZERS)
def test_works_inside_optax_wrappers(case, usual_promotion):
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
    plain = case.ours(0.1, **case.hyper)
    expected, _ = plain.update(params, plain.init(params), params)

    masked = optax.masked(plain, {"w": True, "b": False})
    updates, _ = masked.update(params, masked.init(params), params)
    np.testing.assert_allclose(updates["w"], expected["w"])
    assert updates["b"] == params["b"]

    injected = optax.inject_hyperparams(lambda learning_rate, hyper: case.ours(learning_rate, **hyper))(
        learning_rate=0.1, hyper=case.hyper
    )
    updates, state = jax.jit(injected.update)(params, injected.init(params), params)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)
    assert state.hyperparams["learning_rate"] == jnp.float32(0.1)

    every = optax.MultiSteps(plain, every_k_schedule=1)
    updates, _ = every.update(params, every.init(params), params)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)


@over(OPTIMIZERS)
@pytest.mark.parametrize("params", [(), {}, {"a": (), "b": None}], ids=str)
def test_networks_without_parameters_are_optimized_too(case, params):
    optimizer = case.ours(0.1, **case.hyper)
    updates, state = optimizer.update(params, optimizer.init(params), params)
    assert updates == params
    assert state.count == 1


@pytest.fixture
def usual_promotion():
    """optax's own wrappers need JAX's standard promotion of dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


# Errors --------------------------------------------------------------------------------------------------------------

TREE = {"dense": {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}}


def updated(case, grads, params=TREE):
    optimizer = case.ours(0.1, **case.hyper)
    return optimizer.update(grads, optimizer.init(TREE), params)


@over(OPTIMIZERS)
def test_gradients_of_another_structure_are_named_by_path(case):
    lacking = {"dense": {"w": TREE["dense"]["w"]}}
    with pytest.raises(ValueError, match=r"gradients lack dense/b"):
        updated(case, lacking)
    with pytest.raises(ValueError, match=r"lacks other"):
        updated(case, {**TREE, "other": jnp.ones(2)})
    with pytest.raises(ValueError, match="same structure"):
        updated(case, {"dense": [TREE["dense"]["b"], TREE["dense"]["w"]]})


@over(OPTIMIZERS)
def test_gradients_of_another_shape_are_named_by_path(case):
    wrong = {"dense": {"w": jnp.ones((2, 3)), "b": jnp.ones((1,))}}
    with pytest.raises(ValueError, match=r"gradient at dense/b has shape \(1,\), but \w+ has shape \(3,\)"):
        updated(case, wrong)


@over(OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["int32", "bool", "uint8"])
def test_integer_parameters_are_named_by_path(case, dtype):
    optimizer = case.ours(0.1, **case.hyper)
    with pytest.raises(TypeError, match=rf"parameters must be floating-point or complex, got {dtype} at dense/0"):
        optimizer.init({"dense": [jnp.ones(2, dtype)]})


@over(OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["int32", "bool", "int8"])
def test_integer_gradients_are_named_by_path(case, dtype):
    params = {"dense": [jnp.ones(2)]}
    optimizer = case.ours(0.1, **case.hyper)
    with pytest.raises(TypeError, match=rf"gradients must be floating-point or complex, got {dtype} at dense/0"):
        optimizer.update({"dense": [jnp.ones(2, dtype)]}, optimizer.init(params), params)


@pytest.mark.parametrize(
    "leaf",
    ["abc", b"abc", abs, object(), True, 1, np.array(["a"]), np.array([None])],
    ids=lambda leaf: type(leaf).__name__,
)
def test_parameters_and_gradients_that_are_no_numbers_are_named(leaf):
    for make in (optim.sgd, optim.adam, optim.adamw, optim.params_ema):
        with pytest.raises(
            TypeError, match=rf"^{make.__name__}: parameters must be floating-point or complex, got .* at w;"
        ):
            make(0.1).init({"w": leaf})
        optimizer, params = make(0.1), {"w": 2.5}
        for passed in (params, None) if make in (optim.sgd, optim.adam) else (params,):
            with pytest.raises(
                TypeError, match=rf"^{make.__name__}: gradients must be floating-point or complex, got .* w;"
            ):
                optimizer.update({"w": leaf}, optimizer.init(params), passed)


@pytest.mark.parametrize("name", ["adamw", "lion"])
@pytest.mark.parametrize(
    "mask",
    [
        {"v": True},
        {"dense": {"w": True}},
        1,
        "abc",
        np.array([True]),
        jnp.arange(3),
        abs,
        lambda p: 1,
        jax.random.key(0),
    ],
    ids=["other name", "other layer", "number", "text", "array", "integers", "function", "lambda", "key"],
)
def test_masks_that_do_not_fit_are_named(name, mask):
    optimizer = getattr(optim, name)(0.1, mask=mask)
    with pytest.raises(ValueError, match=f"^{name}: mask must be a tree of booleans with the same structure"):
        optimizer.update(TREE, optimizer.init(TREE), TREE)


@pytest.mark.parametrize(
    "schedule",
    [lambda: 0.1, lambda count: jnp.ones(2), lambda count: None, lambda count: "a", lambda count: 1j, lambda a, b: 1,
     optim.adam, lambda count: 0.1 if count > 1 else 0.2],
)  # fmt: skip
def test_schedules_that_return_no_number_are_named(schedule):
    """The last one branches on the step."""
    for name in ("sgd", "adamw"):
        optimizer = getattr(optim, name)(schedule)
        with pytest.raises(TypeError, match=f"^{name}: a schedule must map the number of steps"):
            jax.jit(optimizer.update)(TREE, optimizer.init(TREE), TREE)


def test_gradients_without_values_are_named():
    """`jax.grad` with allow_int returns them for integers."""
    gradient = jax.grad(lambda n: n * 0.5, allow_int=True)(1)
    with pytest.raises(TypeError, match="sgd: gradients must be floating-point or complex, got"):
        optim.sgd(0.1).update(gradient, optim.sgd(0.1).init(()))


@over([case for case in OPTIMIZERS if case.moments])
def test_complex_gradients_of_real_parameters_are_named(case):
    params = {"dense": jnp.ones(2)}
    optimizer = case.ours(0.1, **case.hyper)
    with pytest.raises(TypeError, match=r"gradient at dense is complex64, \w+ is float32; both must be real"):
        optimizer.update({"dense": jnp.ones(2, jnp.complex64)}, optimizer.init(params), params)


def test_states_of_similar_optimizers_are_told_apart():
    makers = [optim.adam, optim.adamw, optim.nadam, optim.momentum, optim.nesterov]
    states = [make(0.1).init(TREE) for make in makers]
    for i, make in enumerate(makers):
        for j, state in enumerate(states):
            if i == j:
                make(0.1).update(TREE, state, TREE)
                continue
            with pytest.raises(TypeError, match=f"^{make.__name__}: expected .*State, got {type(state).__name__}"):
                make(0.1).update(TREE, state, TREE)


@over(OPTIMIZERS)
def test_state_of_another_optimizer_is_named(case):
    optimizer, other = case.ours(0.1, **case.hyper), optax.novograd(0.1)
    with pytest.raises(TypeError, match=r"expected \w+State, got \w+, the state of another optimizer; make"):
        optimizer.update(TREE, other.init(TREE), TREE)
    own = type(optimizer.init(TREE))
    foreign = next(o for o in (optim.lion(0.1), optim.sgd(0.1)) if type(o.init(TREE)) is not own)
    with pytest.raises(TypeError, match=f"got {type(foreign.init(TREE)).__name__}, the state of another optimizer"):
        optimizer.update(TREE, foreign.init(TREE), TREE)


@over([case for case in OPTIMIZERS if case.needs_params])
def test_decay_without_parameters_says_how_to_give_them(case):
    with pytest.raises(ValueError, match=r"^\w+: the update needs the parameters; call update\(grads, state, params\)"):
        updated(case, TREE, None)


@over([case for case in OPTIMIZERS if not case.needs_params])
def test_parameters_are_optional_without_decay(case):
    chex.assert_trees_all_equal(updated(case, TREE, None), updated(case, TREE, TREE))


@over(OPTIMIZERS)
def test_hyper_parameters_out_of_range_are_named_with_their_range(case):
    hyper = {"learning_rate": 0.1, **case.hyper}
    for name in hyper:
        shares = {"b1", "b2", "decay", "momentum"}
        ranges = r"\[0, 1\)" if name in shares else r"\[0, inf\)"
        wrong = [float("nan"), float("inf"), -0.1, np.float64(-1.0), jnp.asarray(-0.5)]
        for value in wrong + ([1.0, 2] if name in shares else []):
            with pytest.raises(ValueError, match=rf"^\w+: {name} must be in {ranges}, got {float(value):g}$"):
                case.ours(**{**hyper, name: value})
        functions = () if name in ("learning_rate", "weight_decay") else (abs,)  # they may be schedules
        for value in (jnp.array([0.1, 0.2]), np.array([0.1]), [[1], [1, 2]], "0.1", {}, 1j, *functions):
            hint = "; use jax.vmap for several values" if isinstance(value, (jax.Array, np.ndarray, list)) else ""
            with pytest.raises(ValueError, match=rf"^\w+: {name} must be one number, got .*(?<!values){hint}$"):
                case.ours(**{**hyper, name: value})


@over(OPTIMIZERS)
def test_hyper_parameters_at_the_edge_of_their_range_are_taken(case):
    for name in case.hyper:
        updates, _ = case.ours(0.1, **{**case.hyper, name: 0}).update(
            TREE, case.ours(0.0, **case.hyper).init(TREE), TREE
        )
        assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates)), name


# The average of the parameters ---------------------------------------------------------------------------------------


def test_params_ema_equals_a_numpy_loop():
    decay, steps = 0.9, 20
    grads, params = scripted_gradients(steps), optimizer_params()
    optimizer = optax.chain(optim.momentum(1e-3), optim.params_ema(decay))
    plain = optim.momentum(1e-3)
    state, other = optimizer.init(params), plain.init(params)
    chex.assert_trees_all_equal(optim.averaged(state), params)
    average = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params)]
    update = jax.jit(optimizer.update)
    for t in range(steps):
        g = jax.tree.map(lambda leaf: leaf[t], grads)  # noqa: B023
        updates, state = update(g, state, params)
        expected, other = plain.update(g, other)
        chex.assert_trees_all_close(updates, expected, rtol=1e-5)
        params = optax.apply_updates(params, updates)
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params)]
        average = [decay * a + (1 - decay) * p for a, p in zip(average, leaves, strict=True)]
    for a, b in zip(jax.tree.leaves(optim.averaged(state)), average, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert tree_types(optim.averaged(state)) == tree_types(params)


def test_params_ema_decay_can_be_swept():
    params, grads = optimizer_params(), jax.tree.map(lambda g: g[0], scripted_gradients(1))

    def run(decay):
        optimizer = optax.chain(optim.sgd(0.1), optim.params_ema(decay))
        return optim.averaged(optimizer.update(grads, optimizer.init(params), params)[1])

    many = jax.vmap(run)(jnp.array([0.0, 0.5]))
    for i, decay in enumerate((0.0, 0.5)):
        chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[i], many), run(decay), rtol=1e-6)  # noqa: B023


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_params_ema_keeps_dtypes(dtype):
    params = optimizer_params(dtype)
    for decay in (0.5, np.float64(0.5), jnp.asarray(0.5)):
        optimizer = optim.params_ema(decay)
        state = optimizer.init(params)
        updates, new = jax.eval_shape(optimizer.update, params, state, params)
        assert tree_types(updates) == tree_types(new.params_ema) == tree_types(params)


def test_params_ema_of_no_parameters():
    optimizer = optim.params_ema(0.9)
    assert optimizer.update((), optimizer.init(()), ()) == ((), optimizer.init(()))


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_params_ema_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=rf"params_ema: decay must be in \[0, 1\), got {decay:g}"):
        optim.params_ema(decay)


def test_params_ema_errors():
    optimizer = optim.params_ema(0.9)
    with pytest.raises(ValueError, match=r"params_ema: the update needs the parameters; call update\("):
        optimizer.update(TREE, optimizer.init(TREE))
    with pytest.raises(ValueError, match=r"at dense/b has shape \(1,\)"):
        optimizer.update({"dense": {"w": jnp.ones((2, 3)), "b": jnp.ones((1,))}}, optimizer.init(TREE), TREE)
    with pytest.raises(ValueError, match=re.escape("use optax.chain(optimizer, optim.params_ema(0.999))")):
        optim.averaged(optim.adam(0.1).init(TREE))


def test_params_ema_of_integers_is_refused():
    with pytest.raises(TypeError, match="params_ema: parameters must be floating-point or complex, got int32 at n"):
        optim.params_ema(0.9).init({"n": jnp.array([1])})


def test_averaged_of_two_averages_says_how_to_choose():
    optimizer = optax.chain(optim.sgd(0.1), optim.params_ema(0.9), optim.params_ema(0.0))
    state = optimizer.init(TREE)
    with pytest.raises(ValueError, match=r"keeps 2 averages, at the paths 1 and 2 .*; pass .* averaged\(opt_state\[1"):
        optim.averaged(state)
    _, state = optimizer.update(TREE, state, TREE)
    last = jax.tree.map(lambda p: 0.9 * p, TREE)
    chex.assert_trees_all_close(optim.averaged(state[2]), last)
    chex.assert_trees_all_close(optim.averaged(state[1]), jax.tree.map(lambda p, q: 0.9 * p + 0.1 * q, TREE, last))


def test_averaged_ignores_parameters_of_its_name():
    params = {"params_ema": jnp.ones(2)}
    optimizer = optax.chain(optim.momentum(0.1), optim.params_ema(0.9))
    chex.assert_trees_all_equal(optim.averaged(optimizer.init(params)), params)


def test_every_optimizer_is_in_the_table():
    tested = {getattr(case.ours, "func", case.ours) for case in OPTIMIZERS}
    assert tested == {getattr(optim, name) for name in set(optim.__all__) - {"params_ema", "averaged"}}


SHARED = [name for name in optim.__all__ if hasattr(optax, name)]


@pytest.mark.parametrize("name", SHARED)
def test_names_and_defaults_of_arguments_are_those_of_optax(name):
    ours, theirs = (inspect.signature(getattr(library, name)).parameters for library in (optim, optax))
    assert ours.keys() <= theirs.keys()
    assert {argument: p.default for argument, p in ours.items()} == {a: theirs[a].default for a in ours}
