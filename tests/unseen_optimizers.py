"""More cases of test_optcheck_causes.py, written without knowledge of the rules that optcheck knows."""

import jax
import jax.numpy as jnp
import optax
from wrong_optimizers import ADAM, ADAMW, B1, B2, EPS, LR, RMSPROP, Case, ids, moments, rule

WEIGHT_DECAY = 1e-4  # of optax.adamw
DECAYED = optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(LR, 0.9))


def hats(m, v, t, b1=B1, b2=B2):
    return m / (1 - b1**t), v / (1 - b2**t)


def adam(formula):
    """Adam's moments, and a step made of `formula(m̂, v̂, t, p, m, v)`."""

    def update(g, p, t, m, v):
        m, v = moments(g, m, v)
        return -LR * formula(*hats(m, v, t), t, p, m, v), {"m": m, "v": v}

    return rule(update, "m", "v")


def corrections_swapped(g, p, t, m, v):
    m, v = moments(g + 1e-2 * p, m, v)
    return -LR * m / (1 - B2**t) / (jnp.sqrt(v / (1 - B1**t)) + EPS), {"m": m, "v": v}


def second_of_first(g, p, t, m, v):
    m = B1 * m + (1 - B1) * g
    v = B2 * v + (1 - B2) * m * m
    return -LR * m / (jnp.sqrt(v / (1 - B2**t)) + EPS), {"m": m, "v": v}


def l2_and_eps(g, p, t, m, v):
    m, v = moments(g + WEIGHT_DECAY * p, m, v)
    m_hat, v_hat = hats(m, v, t)
    return -LR * m_hat / jnp.sqrt(v_hat + EPS), {"m": m, "v": v}


def decaying_sum(g, p, t, s):
    s = 0.9 * s + g * g
    return -LR * g / (jnp.sqrt(s) + EPS), {"s": s}


def falling_nesterov(g, p, t, b):
    b = 0.9 * b + g
    return -LR / jnp.sqrt(t) * (g + 0.9 * b), {"b": b}


def adabelief(g, p, t, m, s):
    m = B1 * m + (1 - B1) * g
    s = B2 * s + (1 - B2) * (g - m) ** 2 + 1e-16
    return -LR * m / (1 - B1**t) / (jnp.sqrt(s) + 1e-16), {"m": m, "s": s}


def adamax(g, p, t, m, u):
    m, u = B1 * m + (1 - B1) * g, jnp.maximum(B2 * u, jnp.abs(g) + EPS)
    return -LR * (m / (1 - B1**t)) / (u / (1 - B2**t)), {"m": m, "u": u}


def other_numbers(g, p, t, m, v):
    m, v = 0.95 * m + (1 - 0.95) * g, 0.98 * v + (1 - 0.98) * g * g
    m_hat, v_hat = hats(m, v, t, 0.95, 0.98)
    return -3e-4 * m_hat / (jnp.sqrt(v_hat) + 1e-6), {"m": m, "v": v}


def adagrad(g, p, t, s):
    s = s + g * g
    return -LR * g / jnp.sqrt(s + 1e-7), {"s": s}


def dampened(g, p, t, b):
    b = jnp.where(t == 1, g, 0.9 * b + 0.25 * g)
    return -LR * b, {"b": b}


def sutskever(g, p, t, v):
    """Nesterov's method, but of the point that is looked ahead to: the parameters themselves differ."""
    v = 0.9 * v - LR * g
    return v, {"v": v}


def growing_and_uncorrected(g, p, t, m, v):
    m, v = moments(g, m, v)
    u = -LR * m / (1 - B1**t) / (jnp.sqrt(v) + EPS)
    return u + LR * WEIGHT_DECAY * p, {"m": m, "v": v}


def single(g, p, t, m, v):
    """Compute in float32 for all inputs."""
    m_, v_ = moments(g.astype(jnp.float32), m.astype(jnp.float32), v.astype(jnp.float32))
    m_hat, v_hat = hats(m_, v_, t.astype(jnp.float32))
    u = -LR * m_hat / (jnp.sqrt(v_hat) + EPS)
    return u.astype(g.dtype), {"m": m_.astype(g.dtype), "v": v_.astype(g.dtype)}


def decay_in_a_loop():
    """`g += …` changes NumPy's arrays, and only names a new one where they are JAX's: the decay is lost."""

    def update(grads, b, params):
        for g, p in zip(jax.tree.leaves(grads), jax.tree.leaves(params), strict=True):
            g += 1e-2 * p  # noqa: PLW2901
        b = jax.tree.map(lambda b, g: 0.9 * b + g, b, grads)
        return jax.tree.map(lambda b: -LR * b, b), b

    return lambda params: jax.tree.map(jnp.zeros_like, params), update


def padam(m_hat, v_hat, t, p, m, v):
    """The fourth root."""
    return m_hat / (v_hat**0.25 + EPS)


MORE_WRONG = {
    "fourth root": Case(adam(padam), ADAM, ids("root-twice")),
    "decay inside the root": Case(adam(lambda m, v, t, p, *_: (m + WEIGHT_DECAY * p) / (jnp.sqrt(v) + EPS)), ADAMW,
        ids("decay-preconditioned")),
    "no correction of AdaBelief's s": Case(rule(adabelief, "m", "s"), "optax.adabelief", ids("second_correction-none")),
    "a correction of Adamax' u": Case(rule(adamax, "m", "u"), "optax.adamax", ids("second_correction-t")),
    "Lion with one beta": Case(
        rule(lambda g, p, t, m: (-LR * (jnp.sign(c := 0.9 * m + 0.1 * g) + 1e-3 * p), {"m": c}), "m"), "optax.lion",
        ids("b2"), (ids("first-ema"), ids("first-trace"))),
    "other numbers": Case(rule(other_numbers, "m", "v"), ADAM, ids("learning_rate", "b1", "b2", "eps")),
    "Adagrad for RMSProp": Case(rule(adagrad, "s", start=0.1), RMSPROP, ids("second-sum", "second_start", "eps")),
    "dampening": Case(rule(dampened, "b"), "momentum", ids("velocity-dampened", "dampening")),
    "Nesterov as Sutskever": Case(rule(sutskever, "v"), "nesterov", ids("nesterov-none"),
        (ids("nesterov-none", "lr-in-velocity"),)),
    "decay in a loop": Case(decay_in_a_loop(), DECAYED, ids("decay-none")),
    "float32 inside": Case(rule(single, "m", "v"), ADAM, ids("precision")),
    "growing decay, v uncorrected": Case(rule(growing_and_uncorrected, "m", "v"), ADAMW,
        ids("decay-wrong-sign", "second_correction-none")),  # the decay is less than float32's rounding
    "eps inside, falling rate": Case(adam(lambda m, v, t, *_: m / jnp.sqrt(t) / jnp.sqrt(v + EPS)), ADAM,
        ids("eps-inside", "schedule-inverse-root")),
    "v of m, m uncorrected": Case(rule(second_of_first, "m", "v"), ADAM,
        ids("first_correction-none", "second-m-squared")),
    "corrections swapped, L2": Case(rule(corrections_swapped, "m", "v"), ADAM,
        ids("first_correction-swapped", "second_correction-swapped", "decay-l2", "weight_decay")),
    "L2, eps inside": Case(rule(l2_and_eps, "m", "v"), ADAMW, ids("decay-l2", "eps-inside")),
    "decaying sum, eps outside": Case(rule(decaying_sum, "s"), RMSPROP, ids("second-trace", "eps-outside"),
        (ids("second_correction-constant", "eps-outside"),)),
    "Nesterov, falling rate": Case(rule(falling_nesterov, "b"), "momentum",
        ids("nesterov-standard", "schedule-inverse-root")),
}  # fmt: skip

# Correct in an unusual form -------------------------------------------------------------------------------------------


def sums(g, p, t, m, v, of_m, of_v):
    """Sums, divided by the sums of their weights."""
    m, v, of_m, of_v = B1 * m + g, B2 * v + g * g, B1 * of_m + 1, B2 * of_v + 1
    return -LR * (m / of_m) / (jnp.sqrt(v / of_v) + EPS), {"m": m, "v": v, "of_m": of_m, "of_v": of_v}


def lion_by_comparison(g, p, t, m):
    c = g + 9.0 * m
    sign = jnp.where(c > 0, 1.0, jnp.where(c < 0, -1.0, 0.0)).astype(g.dtype)
    return -LR * sign - LR * 1e-3 * p, {"m": m + 0.01 * (g - m)}


def radam(g, p, t, m, v):
    """ρ by expm1, which keeps the digits that 1 - β₂ᵗ loses in float32."""
    m, v = moments(g, m, v)
    m_hat, v_hat = hats(m, v, t)
    limit = 2 / (1 - B2) - 1
    length = limit - 2 * t / jnp.expm1(-t * jnp.log1p(jnp.asarray(B2 - 1, t.dtype)))
    over = length >= 5
    safe = jnp.where(over, length, 6.0)
    r = jnp.sqrt((safe - 4) * (safe - 2) * limit / ((limit - 4) * (limit - 2) * safe))
    return -LR * jnp.where(over, r * m_hat / (jnp.sqrt(v_hat) + EPS), m_hat), {"m": m, "v": v}


MORE_RIGHT = {
    "sums over weights": Case(rule(sums, "m", "v", "of_m", "of_v"), ADAM, ids()),
    "RMSProp of a decaying sum": Case(
        rule(lambda g, p, t, s: (-LR * g * (0.1 * (s := 0.9 * s + g * g) + EPS) ** -0.5, {"s": s}), "s"), RMSPROP, ids()
    ),
    "Nesterov as CS231n": Case(
        rule(lambda g, p, t, b: (-0.9 * b + 1.9 * (new := 0.9 * b - LR * g), {"b": new}), "b"), "nesterov", ids()
    ),
    "Lion by comparison": Case(rule(lion_by_comparison, "m"), "optax.lion", ids()),
    "Adagrad's start in the root": Case(
        rule(lambda g, p, t, s: (-LR * g / jnp.sqrt((s := s + g * g) + (0.1 + 1e-7)), {"s": s}), "s"),
        "optax.adagrad", ids(),
    ),
    "RAdam with all its digits": Case(rule(radam, "m", "v"), "optax.radam", ids()),
}  # fmt: skip

# Outside of all known rules -------------------------------------------------------------------------------------------


def cautious(m_hat, v_hat, t, p, m, v):
    """Where the parameters have the sign of the step, it is left out."""
    u = m_hat / (jnp.sqrt(v_hat) + EPS)
    return jnp.where(u * p > 0, 0.0, u)


def three_velocities(g, p, t, a, b):
    """AggMo."""
    a, b = 0.9 * a + g, 0.99 * b + g
    return -LR * (g + a + b) / 3, {"a": a, "b": b}


def adafactor(g, p, t, row, column):
    """Store only the means of rows and columns of matrices."""
    b, squared = 1 - t**-0.8, g * g + 1e-30
    if g.ndim < 2:
        row = b * row + (1 - b) * squared
        return -LR * g / jnp.sqrt(row), {"row": row, "column": column}
    row = b * row + (1 - b) * jnp.broadcast_to(squared.mean(-1, keepdims=True), g.shape)
    column = b * column + (1 - b) * jnp.broadcast_to(squared.mean(-2, keepdims=True), g.shape)
    u = g / jnp.sqrt(row / row.mean(-2, keepdims=True)) / jnp.sqrt(column)
    return -LR * u, {"row": row, "column": column}


MORE_UNKNOWN = {
    "cautious": Case(adam(cautious), ADAM, ids()),
    "three velocities": Case(rule(three_velocities, "a", "b"), "momentum", ids()),
    "Adafactor": Case(rule(adafactor, "row", "column"), RMSPROP, ids()),
}
