"""Cases of test_optcheck_causes.py: correct and wrong optimizers, each written from its formula."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

LR, B1, B2, EPS, MU, WD = 1e-3, 0.9, 0.999, 1e-8, 0.9, 1e-2
ADAM, ADAMW, RMSPROP = "optax.adam", "optax.adamw", "optax.rmsprop"


class Case(NamedTuple):
    """An optimizer, its reference, and the ids of the causes that the checker must name."""

    optimizer: object
    reference: str
    causes: frozenset[str]
    ties: tuple[frozenset[str], ...] = ()  # explanations that fit equally well


def rule(update, *names, start=0.0, count=0):
    """`(init, update)` from the rule of one array: `update(g, p, t, **memory) -> (u, memory)`, t = 1, 2, …"""

    def init(params):
        zeros = {name: jax.tree.map(lambda p: jnp.full_like(p, start), params) for name in names}
        return {"t": jnp.full((), count, jnp.int32), **zeros}

    def step(grads, state, params):
        t = state["t"] + 1
        leaves, treedef = jax.tree.flatten(grads)
        memories = [jax.tree.leaves(state[name]) for name in names]
        rows = [
            update(g, p, t.astype(g.dtype), **dict(zip(names, memory, strict=True)))
            for g, p, *memory in zip(leaves, jax.tree.leaves(params), *memories, strict=True)
        ]
        new = {name: jax.tree.unflatten(treedef, [row[1][name] for row in rows]) for name in names}
        return jax.tree.unflatten(treedef, [row[0] for row in rows]), {"t": t, **new}

    return init, step


def moments(g, m, v):
    return B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g**2


def adam(formula):
    """Adam's moments, and a step made of them by `formula(m, v, t, g, p, m_before, v_before)`."""

    def update(g, p, t, m, v):
        new_m, new_v = moments(g, m, v)
        return -formula(new_m, new_v, t, g, p, m, v), {"m": new_m, "v": new_v}

    return rule(update, "m", "v")


def adam_of(first, second, keep=lambda m, v, t, old: (m, v)):
    """Adam with other moments, `first(m, g, t)` and `second(v, g, m, m_before, t)`."""

    def update(g, p, t, m, v):
        new_m = first(m, g, t)
        new_v = second(v, g, new_m, m, t)
        memory = keep(new_m, new_v, t, (m, v))
        return -LR * hat(new_m, B1, t) / (jnp.sqrt(hat(new_v, B2, t)) + EPS), dict(zip("mv", memory, strict=True))

    return rule(update, "m", "v")


def hat(x, b, t):
    return x / (1 - b**t)


def ratio(m, v, t):
    return LR * hat(m, B1, t) / (jnp.sqrt(hat(v, B2, t)) + EPS)


def rmsprop(formula, start=0.0, decay=0.9):
    def update(g, p, t, v):
        v = decay * v + (1 - decay) * g**2
        return -LR * formula(g, v), {"v": v}

    return rule(update, "v", start=start)


def momentum(formula):
    """`formula(g, b) -> (step, new b)`"""

    def update(g, p, t, b):
        u, b = formula(g, b)
        return -u, {"b": b}

    return rule(update, "b")


def ema(b):
    return lambda m, g, t: b * m + (1 - b) * g


def squares(v, g, m, m_before, t):
    return B2 * v + (1 - B2) * g**2


def per_leaf_counter():
    """The counter moves on with every leaf."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return {"t": jnp.zeros((), jnp.int32), "m": zeros, "v": zeros}

    def step(grads, state, params):
        t, rows = state["t"], []
        leaves, treedef = jax.tree.flatten(grads)
        for g, m, v in zip(leaves, jax.tree.leaves(state["m"]), jax.tree.leaves(state["v"]), strict=True):
            t = t + 1
            m, v = moments(g, m, v)  # noqa: PLW2901
            rows.append((-ratio(m, v, t.astype(g.dtype)), m, v))
        u, m, v = (jax.tree.unflatten(treedef, column) for column in zip(*rows, strict=True))
        return u, {"t": t, "m": m, "v": v}

    return init, step


def masked(decayed):
    """AdamW with the decay on some leaves only."""

    def update(g, p, t, m, v):
        m, v = moments(g, m, v)
        return -ratio(m, v, t) - (LR * WD * p if decayed(p) else 0), {"m": m, "v": v}

    return rule(update, "m", "v")


def ids(*names):
    return frozenset(names)


def sqrt_of_corrections(t):
    return jnp.sqrt(1 - B2**t) / (1 - B1**t)


NO_CORRECTION = ids("first_correction-none", "second_correction-none")
CONSTANT = ids("first_correction-constant", "second_correction-constant")
STUCK, NO_RATE = ids("counter-stuck"), ids("decay-without-rate", "weight_decay")
DECAY = ids("decay-decoupled", "weight_decay")


def centred(g, p, t, b):
    g = g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True) if g.ndim > 1 else g
    b = MU * b + g
    return -LR * b, {"b": b}


WRONG = {
    "warm start": Case(
        adam(lambda m, v, t, *_: ratio(m, v, t) * jnp.minimum(1.0, t / 10)), ADAM, ids("schedule-warm-up", "rate_decay")
    ),
    "centralised": Case(rule(centred, "b"), "momentum", ids("centre-rows")),
    "eps outside the root": Case(rmsprop(lambda g, v: g / (jnp.sqrt(v) + EPS)), RMSPROP, ids("eps-outside")),
    "first accumulator 1": Case(rmsprop(lambda g, v: g / jnp.sqrt(v + EPS), start=1.0), RMSPROP, ids("second_start")),
    "torch's default decay": Case(rmsprop(lambda g, v: g / jnp.sqrt(v + EPS), decay=0.99), RMSPROP, ids("b2")),
    "momentum as an average": Case(
        momentum(lambda g, b: (LR * (new := MU * b + (1 - MU) * g), new)), "momentum", ids("velocity-ema"),
        (ids("learning_rate"),),
    ),
    "Nesterov with the new velocity": Case(
        momentum(lambda g, b: ((1 + MU) * LR * g + MU**2 * (new := MU * b + LR * g), new)), "nesterov",
        ids("nesterov-new-velocity"), (ids("nesterov-new-velocity", "lr-in-velocity"),),
    ),
    "stale velocity": Case(momentum(lambda g, b: (LR * b, MU * b + g)), "momentum", ids("nesterov-old-velocity")),
    "eps before the correction": Case(
        adam(lambda m, v, t, *_: LR * sqrt_of_corrections(t) * m / (jnp.sqrt(v) + EPS)), ADAM,
        ids("eps-before-correction"),
    ),
    "eps inside the root of raw v": Case(
        adam(lambda m, v, t, *_: LR * sqrt_of_corrections(t) * m / jnp.sqrt(v + EPS)), ADAM,
        ids("eps-inside-before-correction"),
    ),
    "eps inside the root": Case(
        adam(lambda m, v, t, *_: LR * hat(m, B1, t) / jnp.sqrt(hat(v, B2, t) + EPS)), ADAM, ids("eps-inside")
    ),
    "no correction": Case(adam(lambda m, v, *_: LR * m / (jnp.sqrt(v) + EPS)), ADAM, NO_CORRECTION),
    "constant correction": Case(
        adam(lambda m, v, *_: LR * m / (1 - B1) / (jnp.sqrt(v / (1 - B2)) + EPS)), ADAM, CONSTANT, (STUCK,)
    ),
    "correction multiplied": Case(
        adam(lambda m, v, t, *_: LR * m * (1 - B1**t) / (jnp.sqrt(v * (1 - B2**t)) + EPS)), ADAM,
        ids("first_correction-multiplied", "second_correction-multiplied"),
    ),
    "corrected moments stored": Case(
        adam_of(ema(B1), squares, lambda m, v, t, old: (hat(m, B1, t), hat(v, B2, t))), ADAM,
        ids("first_storage-corrected", "second_storage-corrected"),
    ),
    "counter stuck": Case(adam(lambda m, v, t, *_: ratio(m, v, jnp.ones_like(t))), ADAM, STUCK, (CONSTANT,)),
    "counter per leaf": Case(per_leaf_counter(), ADAM, ids("counter-per-leaf")),
    "counter from 0": Case(adam(lambda m, v, t, *_: ratio(m, v, t - 1)), ADAM, ids("counter-behind")),
    "counter ahead": Case(
        adam(lambda m, v, t, *_: ratio(m, v, t + 1)), ADAM, ids("counter-ahead"),
        (ids("first_correction-t-+-1", "second_correction-t-+-1"),),
    ),
    "state not written back": Case(
        adam_of(ema(B1), squares, lambda m, v, t, old: old), ADAM, ids("first_storage-none", "second_storage-none")
    ),
    "missing root": Case(adam(lambda m, v, t, *_: LR * hat(m, B1, t) / (hat(v, B2, t) + EPS)), ADAM, ids("root-none")),
    "shadowed variable": Case(
        adam_of(ema(B1), lambda v, g, m, m_before, t: B2 * m + (1 - B2) * g**2), ADAM, ids("second-m-for-v")
    ),
    "moments lag": Case(
        adam(lambda m, v, t, g, p, old_m, old_v: ratio(old_m, old_v, t)), ADAM,
        ids("first_lag-one-step", "second_lag-one-step"),
    ),
    "eps grows in v": Case(
        adam_of(ema(B1), lambda v, g, m, old, t: squares(v, g, m, old, t) + EPS), ADAM, ids("eps-in-state")
    ),
    "eps grows in v, nowhere else": Case(
        rule(
            lambda g, p, t, m, v: (
                -LR * hat(new := moments(g, m, v)[0], B1, t) / jnp.sqrt(hat(w := moments(g, m, v)[1] + EPS, B2, t)),
                {"m": new, "v": w},
            ), "m", "v",
        ), ADAM, ids("eps-in-state-only"),
    ),
    "residual of the old m": Case(
        adam_of(ema(B1), lambda v, g, m, old, t: B2 * v + (1 - B2) * (g - old) ** 2), ADAM, ids("second-belief-old-m")
    ),
    "eps after the division": Case(
        adam(lambda m, v, t, *_: LR * hat(m, B1, t) * (1 / jnp.sqrt(hat(v, B2, t)) + EPS)), ADAM,
        ids("eps-after-division"),
    ),
    "decay without the rate": Case(adam(lambda m, v, t, g, p, *_: ratio(m, v, t) + WD * p), ADAM, NO_RATE, (DECAY,)),
    "L2 instead of decoupled": Case(
        rule(
            lambda g, p, t, m, v: (
                -ratio(*(new := moments(g + 1e-4 * p, m, v)), t), dict(zip("mv", new, strict=True))
            ), "m", "v",
        ), ADAMW, ids("decay-l2"),
    ),
    "decay of the updated": Case(
        adam(lambda m, v, t, g, p, *_: (u := ratio(m, v, t)) + LR * 100.0 * (p - u)), ADAM,
        ids("decay-after-update", "weight_decay"),
    ),
    "decay lost": Case(adam(lambda m, v, t, *_: ratio(m, v, t)), ADAMW, ids("decay-none")),
    "another decay": Case(
        adam(lambda m, v, t, g, p, *_: ratio(m, v, t) + LR * WD * p), ADAMW, ids("weight_decay"),
        (ids("decay-without-rate", "weight_decay"),),
    ),
    "PyTorch's AMSGrad": Case("torch.amsgrad", "optax.amsgrad", ids("maximum-raw")),
    "PyTorch's NAdam": Case("torch.nadam", "optax.nadam", ids("momentum_decay", "product_storage-float32")),
    "up the gradient": Case(adam(lambda m, v, t, *_: -ratio(m, v, t)), ADAM, ids("direction-up")),
    "betas swapped": Case(adam_of(ema(1 - B1), squares), ADAM, ids("first-swapped"), (ids("b1"),)),
    "m decays with b2": Case(
        rule(
            lambda g, p, t, m, v: (
                -ratio(new := B2 * m + (1 - B2) * g, w := B2 * v + (1 - B2) * g**2, t), {"m": new, "v": w}
            ), "m", "v",
        ), ADAM, ids("first-with-b2"),
    ),
    "v of m": Case(adam_of(ema(B1), lambda v, g, m, old, t: B2 * v + (1 - B2) * m**2), ADAM, ids("second-m-squared")),
    "product, not power": Case(
        adam(lambda m, v, t, *_: LR * m / (1 - B1 * t) / (jnp.sqrt(hat(v, B2, t)) + EPS)), ADAM,
        ids("first_correction-linear"),
    ),
    "eps inside, constant m": Case(
        adam(lambda m, v, t, *_: LR * m / (1 - B1) / jnp.sqrt(hat(v, B2, t) + EPS)), ADAM,
        ids("first_correction-constant", "eps-inside"),
        (ids("first-trace", "first_correction-none", "eps-inside"),
         ids("first_correction-none", "learning_rate", "eps-inside")),
    ),
    "m lags, root missing": Case(
        adam(lambda m, v, t, g, p, old, _: LR * hat(old, B1, t) / (hat(v, B2, t) + EPS)), ADAM,
        ids("first_lag-one-step", "root-none"),
    ),
    "no correction, decay without the rate": Case(
        adam(lambda m, v, t, g, p, *_: LR * m / (jnp.sqrt(v) + EPS) + WD * p), ADAM, NO_CORRECTION | NO_RATE,
        (NO_CORRECTION | DECAY,),
    ),
    "other betas, eps inside": Case(
        rule(
            lambda g, p, t, m, v: (
                -LR * hat(n := 0.8 * m + 0.2 * g, 0.8, t) / jnp.sqrt(hat(w := 0.98 * v + 0.02 * g**2, 0.98, t) + 1e-6),
                {"m": n, "v": w},
            ), "m", "v",
        ), ADAM, ids("eps-inside", "b1", "b2", "eps"), (ids("eps-in-state-only", "b1", "b2", "eps"),),
    ),
    "decay on matrices only": Case(masked(lambda p: p.ndim >= 2), ADAM, DECAY, (NO_RATE,)),
}  # fmt: skip

# Correct in an unusual form -------------------------------------------------------------------------------------------


def running_products():
    """Store the powers of the betas instead of computing them."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        one = jnp.ones((), jax.tree.leaves(params)[0].dtype)
        return {"p1": one, "p2": one, "m": zeros, "v": zeros}

    def step(grads, state, params):
        p1, p2 = state["p1"] * B1, state["p2"] * B2
        m = jax.tree.map(lambda m, g: m + (1 - B1) * (g - m), state["m"], grads)
        v = jax.tree.map(lambda v, g: v + (1 - B2) * (g * g - v), state["v"], grads)
        u = jax.tree.map(lambda m, v: -LR * (m / (1 - p1)) / (jnp.sqrt(v / (1 - p2)) + EPS), m, v)
        return u, {"p1": p1, "p2": p2, "m": m, "v": v}

    return init, step


def debiased_state():
    """Store bias-corrected moments."""

    def update(g, p, t, m, v):
        m = (B1 * (1 - B1 ** (t - 1)) * m + (1 - B1) * g) / (1 - B1**t)
        v = (B2 * (1 - B2 ** (t - 1)) * v + (1 - B2) * g**2) / (1 - B2**t)
        return -LR * m / (jnp.sqrt(v) + EPS), {"m": m, "v": v}

    return rule(update, "m", "v")


def stored_root():
    def update(g, p, t, m, r):
        m, r = B1 * m + (1 - B1) * g, jnp.sqrt(B2 * r**2 + (1 - B2) * g**2)
        return -LR * hat(m, B1, t) / (r / jnp.sqrt(1 - B2**t) + EPS), {"m": m, "r": r}

    return rule(update, "m", "r")


def flattened():
    """All leaves as one vector."""

    def init(params):
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        zeros = jnp.zeros(size, jax.tree.leaves(params)[0].dtype)
        return jnp.zeros((), jnp.int32), zeros, zeros

    def step(grads, state, params):
        t, m, v = state
        leaves, treedef = jax.tree.flatten(grads)
        g = jnp.concatenate([leaf.ravel() for leaf in leaves])
        (m, v), t = moments(g, m, v), t + 1
        u, at, parts = -ratio(m, v, t.astype(g.dtype)), 0, []
        for leaf in leaves:
            parts.append(u[at : at + leaf.size].reshape(leaf.shape))
            at += leaf.size
        return jax.tree.unflatten(treedef, parts), (t, m, v)

    return init, step


def step_function(params, grads, state):
    """Adam as a step from parameters to parameters."""
    if state is None:
        zeros = jax.tree.map(jnp.zeros_like, params)
        state = (jnp.zeros((), jnp.int32), zeros, zeros)
    t, m, v = state
    m = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, m, grads)
    v = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g**2, v, grads)
    t = t + 1
    new = jax.tree.map(lambda p, m, v: p - ratio(m, v, t.astype(p.dtype)), params, m, v)
    return new, (t, m, v)


RIGHT = {
    "as it is": Case(adam(lambda m, v, t, *_: ratio(m, v, t)), ADAM, ids()),
    "another order": Case(
        adam(lambda m, v, t, *_: LR * sqrt_of_corrections(t) * m / (jnp.sqrt(v) + EPS * jnp.sqrt(1 - B2**t))), ADAM,
        ids(),
    ),
    "running products": Case(running_products(), ADAM, ids()),
    "debiased state": Case(debiased_state(), ADAM, ids()),
    "stored root": Case(stored_root(), ADAM, ids()),
    "flattened": Case(flattened(), ADAM, ids()),
    "decay first, as PyTorch": Case(
        adam(lambda m, v, t, g, p, *_: p - (p * (1 - LR * 1e-4) - ratio(m, v, t))), ADAMW, ids()
    ),
    "Keras' velocity": Case(momentum(lambda g, b: (-(new := MU * b - LR * g), new)), "momentum", ids()),
    "Nesterov as Bengio": Case(
        momentum(lambda g, b: ((1 + MU) * LR * g - MU**2 * b, MU * b - LR * g)), "nesterov", ids()
    ),
    "rsqrt": Case(rmsprop(lambda g, v: g * jax.lax.rsqrt(v + EPS)), RMSPROP, ids()),
}  # fmt: skip

# Outside of all known rules: to be unknown, not explained -------------------------------------------------------------

UNKNOWN = {
    "cube root": Case(adam(lambda m, v, t, *_: LR * jnp.cbrt(m) / (jnp.sqrt(hat(v, B2, t)) + EPS)), ADAM, ids()),
    "size of m": Case(adam(lambda m, v, t, *_: LR * jnp.abs(m) / (jnp.sqrt(hat(v, B2, t)) + EPS)), ADAM, ids()),
    "arctan": Case(
        adam(lambda m, v, t, *_: LR * jnp.arctan(hat(m, B1, t) / (jnp.sqrt(hat(v, B2, t)) + EPS))), ADAM, ids()
    ),
    "quantised": Case(adam(lambda m, v, t, *_: ratio(jnp.round(m * 64) / 64, v, t)), ADAM, ids()),
}
