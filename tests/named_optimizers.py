"""Hand-written versions of rules that are named after papers, right and wrong, each written from its formula."""

import functools

import jax
import jax.numpy as jnp
import optax
from wrong_optimizers import LR, Case, ids, rule

CONTRIB = optax.contrib
ADAFACTOR = functools.partial(optax.adafactor, LR)
ADOPT, PRODIGY = functools.partial(CONTRIB.adopt, LR), functools.partial(CONTRIB.prodigy, 1.0)
FREE_ADAMW = functools.partial(CONTRIB.schedule_free_adamw, LR)


# Adan -----------------------------------------------------------------------------------------------------------------


def adan(weight=0.92, correct=True, first_zero=True, inside=False, b3=0.99, prox=0.0):
    """The authors' program: betas (0.98, 0.92, 0.99), differences weighted with 0.92, ε outside the root."""

    def update(g, p, t, m, d, n, old):
        difference = jnp.where(t == 1, 0.0, g - old) if first_zero else g - old
        m = 0.98 * m + 0.02 * g
        d = 0.92 * d + 0.08 * difference
        n = b3 * n + (1 - b3) * (g + weight * difference) ** 2
        c1, c2, c3 = (1 - b**t for b in (0.98, 0.92, b3)) if correct else (1.0, 1.0, 1.0)
        root = jnp.sqrt(n / c3 + 1e-8) if inside else jnp.sqrt(n / c3) + 1e-8
        new = p - LR * (m / c1 + weight * d / c2) / root
        new = new / (1 + LR * prox)
        return new - p, {"m": m, "d": d, "n": n, "old": g}

    return rule(update, "m", "d", "n", "old")


# ADOPT ----------------------------------------------------------------------------------------------------------------


def adopt(clip=0, start=True, previous=True, outside=False, b2=0.9999):
    def update(g, p, t, m, v):
        v_new = b2 * v + (1 - b2) * g**2
        root = jnp.sqrt(v if previous else v_new)
        g_hat = g / (root + 1e-6 if outside else jnp.maximum(root, 1e-6))
        if clip is not None:
            bound = (t - 1 + clip) ** 0.25
            g_hat = jnp.clip(g_hat, -bound, bound)
        m_new = 0.9 * m + 0.1 * g_hat
        if start:
            v_new, m_new = jnp.where(t == 1, g**2, v_new), jnp.where(t == 1, 0.0, m_new)
        return -LR * m_new, {"m": m_new, "v": v_new}

    return rule(update, "m", "v")


# Adafactor ------------------------------------------------------------------------------------------------------------


def adafactor(scale=True, clip=1.0, ahead=0, mean=True, eps=1e-30, factor=True, relative=False):
    """Rows and columns of the last two axes; β₂ = 1 - t^-0.8 in the dtype of the gradients."""

    def update(g, p, t, row, column):
        b2, squares = 1 - (t + ahead) ** -0.8, g * g + eps
        if g.ndim < 2 or not factor:
            row = b2 * row + (1 - b2) * squares
            u = g / jnp.sqrt(row)
        else:
            row = b2 * row + (1 - b2) * jnp.broadcast_to(squares.mean(-1, keepdims=True), g.shape)
            column = b2 * column + (1 - b2) * jnp.broadcast_to(squares.mean(-2, keepdims=True), g.shape)
            u = g / jnp.sqrt(row / row.mean(-2, keepdims=True) if mean else row) / jnp.sqrt(column)
        u = u / jnp.maximum(1.0, jnp.sqrt(jnp.mean(u**2)) / clip) if clip else u
        u = u * jnp.maximum(1e-3, jnp.sqrt(jnp.mean(p**2))) if scale else u
        return -(jnp.minimum(LR, t**-0.5) if relative else LR) * u, {"row": row, "column": column}

    return rule(update, "row", "column")


# Muon -----------------------------------------------------------------------------------------------------------------


def newton_schulz(g, steps=5, coefficients=(3.4445, -4.7750, 2.0315)):
    a, b, c = coefficients
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / (jnp.linalg.norm(x) + 1e-8)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def muon(
    nesterov=True, steps=5, scale=lambda r, c: max(1, r / c) ** 0.5, coefficients=(3.4445, -4.7750, 2.0315), mu=0.95
):
    """The author's program: 2-D leaves orthogonalised, all others follow Adam."""

    def update(g, p, t, b, m, v):
        b = mu * b + g
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        if g.ndim == 2:
            u = scale(*g.shape) * newton_schulz(g + mu * b if nesterov else b, steps, coefficients)
        else:
            u = m / (1 - 0.9**t) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return -LR * u, {"b": b, "m": m, "v": v}

    return rule(update, "b", "m", "v")


# Schedule-free --------------------------------------------------------------------------------------------------------


def schedule_free(average=0, correct=True, result="y", weight_decay=0.0):
    """Schedule-free AdamW in the authors' form: y is moved in place, z is stored."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return {"t": jnp.zeros((), jnp.int32), "z": jax.tree.map(jnp.copy, params), "v": zeros}

    def leaf(g, y, t, z, v):
        v = 0.999 * v + 0.001 * g * g
        d = g / (jnp.sqrt(v / (1 - 0.999**t) if correct else v) + 1e-8) + weight_decay * y
        share = 1 / (t + average)
        x = (y - 0.1 * z) / 0.9
        z = z - LR * d
        x = (1 - share) * x + share * z
        return {"y": 0.9 * x + 0.1 * z, "z": z, "x": x}[result] - y, z, v

    def update(grads, state, params):
        t = state["t"] + 1
        leaves, treedef = jax.tree.flatten(grads)
        rows = [
            leaf(g, y, t.astype(g.dtype), z, v)
            for g, y, z, v in zip(
                leaves, jax.tree.leaves(params), jax.tree.leaves(state["z"]), jax.tree.leaves(state["v"]), strict=True
            )
        ]
        u, z, v = (jax.tree.unflatten(treedef, [row[i] for row in rows]) for i in range(3))
        return u, {"t": t, "z": z, "v": v}

    return init, update


# Prodigy --------------------------------------------------------------------------------------------------------------


def prodigy(correct=True, scaled=True, d0=1e-6):
    b3 = 0.999**0.5

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        dtype = jax.tree.leaves(params)[0].dtype
        one = jnp.ones((), dtype)
        start = jax.tree.map(jnp.copy, params)
        return {
            "t": 0 * jnp.ones((), jnp.int32),
            "d": d0 * one,
            "r": 0 * one,
            "m": zeros,
            "v": zeros,
            "s": zeros,
            "p": start,
        }

    def update(grads, state, params):
        t, d, r = state["t"] + 1, state["d"], state["r"]
        dtype = d.dtype
        tt = t.astype(dtype)
        rate = d * (jnp.sqrt(1 - 0.999**tt) / (1 - 0.9**tt)) if correct else d
        k = d if scaled else 1.0
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * k * g, state["m"], grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * k**2 * g * g, state["v"], grads)
        s = jax.tree.map(lambda s, g: b3 * s + d / d0 * rate * g, state["s"], grads)
        inner = sum(
            jnp.sum(g * (p0 - p)) for g, p0, p in zip(*map(jax.tree.leaves, (grads, state["p"], params)), strict=True)
        )
        r = b3 * r + d / d0 * rate * inner
        estimate = r / sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(s))
        new = jnp.maximum(d, estimate)
        e = new * 1e-8 if scaled else 1e-8
        u = jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + e), m, v)
        return u, {"t": t, "d": new, "r": r, "m": m, "v": v, "s": s, "p": state["p"]}

    return init, update


# AdamP ----------------------------------------------------------------------------------------------------------------


def adamp(project=True, rows=True, inside=False, reduced=True, weight_decay=0.0, delta=0.1):
    def update(g, p, t, m, v):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        v_hat = v / (1 - 0.999**t)
        u = m / (jnp.sqrt(v_hat + 1e-8) if inside else jnp.sqrt(v_hat) + 1e-8)
        ratio = 1.0
        if project and g.ndim > 1:
            done = jnp.zeros((), bool)
            for view in ((g.shape[0], -1), (1, -1)) if rows else ((1, -1),):
                flat_g, flat_p, flat_u = g.reshape(view), p.reshape(view), u.reshape(view)
                norms = (jnp.linalg.norm(flat_g, axis=1) + 1e-8) * (jnp.linalg.norm(flat_p, axis=1) + 1e-8)
                cosine = jnp.abs((flat_g * flat_p).sum(1)) / norms
                flag = (cosine.max() < delta / flat_p.shape[1] ** 0.5) & ~done
                unit = flat_p / (jnp.linalg.norm(flat_p, axis=1, keepdims=True) + 1e-8)
                new = (flat_u - unit * (unit * flat_u).sum(1, keepdims=True)).reshape(g.shape)
                u, done = jnp.where(flag, new, u), done | flag
            ratio = jnp.where(done, 0.1, 1.0) if reduced else 1.0
        return -LR / (1 - 0.9**t) * u - LR * weight_decay * ratio * p, {"m": m, "v": v}

    return rule(update, "m", "v")


# MARS -----------------------------------------------------------------------------------------------------------------


def mars(gamma=0.025, clip=True, inside=False):
    def update(g, p, t, m, v, old):
        c = g + gamma * 0.95 / 0.05 * (g - old)
        norm = jnp.linalg.norm(c.ravel())
        c = jnp.where(norm > 1, c / norm, c) if clip else c
        m, v = 0.95 * m + 0.05 * c, 0.99 * v + 0.01 * c * c
        m_hat, v_hat = m / (1 - 0.95**t), v / (1 - 0.99**t)
        root = jnp.sqrt(v_hat + 1e-8) if inside else jnp.sqrt(v_hat) + 1e-8
        return -LR * (m_hat / root + 1e-2 * p), {"m": m, "v": v, "old": g}

    return rule(update, "m", "v", "old")


def lamb(correct=True):
    """LAMB of the paper: NVIDIA's and the first version's have no bias correction."""

    def update(g, p, t, m, v):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        c1, c2 = (1 - 0.9**t, 1 - 0.999**t) if correct else (1.0, 1.0)
        u = m / c1 / (jnp.sqrt(v / c2) + 1e-6)
        size, step = jnp.linalg.norm(p.ravel()), jnp.linalg.norm(u.ravel())
        return -LR * jnp.where((size == 0) | (step == 0), 1.0, size / step) * u, {"m": m, "v": v}

    return rule(update, "m", "v")


# Sophia ---------------------------------------------------------------------------------------------------------------


def sophia_g(every=10, b1=0.96, gamma=0.05, clip=True, old=False, added=False):
    """The Hessian is estimated by g² at steps 1, 11, 21, …; the step is clip(m / max(γ h, ε), ±1)."""

    def update(g, p, t, m, h):
        m = b1 * m + (1 - b1) * g
        new = jnp.where(t % every == 1 % every, 0.99 * h + 0.01 * g * g, h)
        scaled = gamma * (h if old else new)
        ratio = m / (scaled + 1e-12 if added else jnp.maximum(scaled, 1e-12))
        ratio = jnp.clip(ratio, -1, 1) if clip else ratio
        return -LR * ratio, {"m": m, "h": new}

    return rule(update, "m", "h")


def sophia_h(correct=True, late=True, decay=1e-4, b2=0.99):
    """Hutchinson's estimator with random signs, from the objective, at steps 1, 11, 21, …"""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return 0, zeros, zeros, jax.random.key(7)

    def step(params, grads, state, loss_fn):
        t, m, h, key = state
        leaves, treedef = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.fold_in(key, t), len(leaves))
        signs = [jax.random.rademacher(k, p.shape, p.dtype) for k, p in zip(keys, leaves, strict=True)]
        signs = jax.tree.unflatten(treedef, signs)
        product = jax.jvp(jax.grad(loss_fn), (params,), (signs,))[1]
        m = jax.tree.map(lambda m, g: 0.965 * m + 0.035 * g, m, grads)
        new = jax.tree.map(lambda h, s, hs: jnp.where(t % 10 == 0, b2 * h + (1 - b2) * s * hs, h), h, signs, product)

        def move(p, m, h):
            m = m / (1 - 0.965 ** (t + 1.0)) if correct else m
            return p - LR * (jnp.clip(m / jnp.maximum(0.01 * h, 1e-8), -1, 1) + decay * p)

        params = jax.tree.map(move, params, m, h if late else new)
        return params, (t + 1, m, new, key)

    step.init = init
    return step


class SophiaWithHessian:
    """NumPy, one array for each name; the caller estimates the Hessian."""

    def __init__(self, squared=False):
        self.m, self.h, self.t, self.squared = None, None, 0, squared

    def step(self, params, grads, hessian):
        if self.m is None:
            self.m = {k: 0.0 * g for k, g in grads.items()}
            self.h = {k: 0.0 * g for k, g in grads.items()}
        for k in params:
            self.m[k] = 0.96 * self.m[k] + 0.04 * grads[k]
            if self.t % 10 == 0:
                self.h[k] = 0.99 * self.h[k] + 0.01 * (grads[k] ** 2 if self.squared else hessian[k])
            params[k] = params[k] - LR * (self.m[k] / (0.01 * self.h[k]).clip(1e-12)).clip(-1, 1)
        self.t += 1
        return params


SOPHIA = functools.partial(CONTRIB.sophia, LR)

NAMED_RIGHT = {
    "Adan with optax's weight": Case(adan(0.08), functools.partial(optax.adan, LR, eps_root=0.0), ids()),
    "ADOPT": Case(adopt(), ADOPT, ids()),
    "Adafactor": Case(adafactor(), "paper.adafactor", ids()),
    "Muon with optax's choices": Case(muon(), "paper.muon", ids()),
    "schedule-free": Case(schedule_free(), FREE_ADAMW, ids()),
    "Prodigy": Case(prodigy(), PRODIGY, ids()),
    "AdamP": Case(adamp(), "paper.adamp", ids()),
    "MARS": Case(mars(), "paper.mars", ids()),
    "LAMB": Case(lamb(), functools.partial(optax.lamb, LR), ids()),
    "Sophia-G": Case(sophia_g(), "paper.sophia_g", ids()),
    "Sophia with an objective": Case(sophia_h(), SOPHIA, ids()),
    "Sophia with the Hessian": Case(SophiaWithHessian(), "paper.sophia", ids()),
    "Sophia of optax": Case(SOPHIA(), "optax.contrib.sophia", ids()),
}

NAMED_WRONG = {
    "Adan, the authors'": Case(adan(), functools.partial(optax.adan, LR), ids("weight-decay-rate", "eps_root")),
    "Adan uncorrected": Case(adan(correct=False), "paper.adan", ids("correction-none")),
    "Adan's first difference": Case(adan(first_zero=False), "paper.adan", ids("difference-gradient-first")),
    "Adan, eps inside": Case(adan(inside=True), "paper.adan", ids("eps-inside")),
    "Adan, β₃": Case(adan(b3=0.999), "paper.adan", ids("b3")),
    "Adan, proximal decay": Case(adan(prox=0.02), "paper.adan", ids("decay-proximal", "weight_decay")),
    "ADOPT without clipping": Case(adopt(clip=None), ADOPT, ids("clip-none")),
    "ADOPT clipped a step late": Case(adopt(clip=1), ADOPT, ids("clip-counted-from-1")),
    "ADOPT, new second moment": Case(adopt(previous=False), ADOPT, ids("second-current")),
    "ADOPT, eps outside": Case(adopt(outside=True), ADOPT, ids("eps-outside")),
    "Adafactor without scale": Case(adafactor(scale=False), "paper.adafactor", ids("scale-none")),
    "Adafactor without clipping": Case(adafactor(clip=None), "paper.adafactor", ids("clip-none")),
    "Adafactor, decay ahead": Case(adafactor(ahead=1), "paper.adafactor", ids("second-power-ahead")),
    "Adafactor, no mean": Case(adafactor(mean=False), "paper.adafactor", ids("normalised-none")),
    "Adafactor factored": Case(adafactor(), ADAFACTOR, ids("factored-matrices", "precision")),
    "Muon against optax": Case(
        muon(), functools.partial(CONTRIB.muon, LR),
        ids("nesterov-standard", "scale-rows-over-columns", "others-adam"),
    ),
    "Muon without Nesterov": Case(muon(nesterov=False), "paper.muon", ids("nesterov-none")),
    "Muon, four iterations": Case(muon(steps=4), "paper.muon", ids("iterations-4")),
    "Muon, cubic": Case(muon(coefficients=(1.5, -0.5, 0.0)), "paper.muon", ids("coefficients-cubic")),
    "Muon, no scale": Case(muon(scale=lambda r, c: 1.0), "paper.muon", ids("scale-none")),
    "schedule-free, average": Case(
        schedule_free(average=1), FREE_ADAMW, ids("average-1/(t-+-1)")
    ),
    "schedule-free uncorrected": Case(
        schedule_free(correct=False), FREE_ADAMW, ids("correction-none")
    ),
    "schedule-free returns x": Case(
        schedule_free(result="x"), FREE_ADAMW, ids("result-x")
    ),
    "Prodigy, the authors'": Case(prodigy(correct=False), PRODIGY, ids("correction-none")),
    "Prodigy, d₀": Case(prodigy(d0=1e-4), PRODIGY, ids("distance")),
    "Prodigy, plain moments": Case(prodigy(scaled=False), PRODIGY, ids("moments-plain")),
    "AdamP without projection": Case(adamp(project=False), "paper.adamp", ids("projection-none")),
    "AdamP, leaves only": Case(adamp(rows=False), "paper.adamp", ids("projection-leaf")),
    "AdamP, eps inside": Case(adamp(inside=True), "paper.adamp", ids("eps-inside")),
    "MARS without clipping": Case(mars(clip=False), "paper.mars", ids("clip-none")),
    "MARS, γ": Case(mars(gamma=0.05), "paper.mars", ids("gamma")),
    "MARS, eps inside": Case(mars(inside=True), "paper.mars", ids("eps-inside")),
    "Sophia-G at every step": Case(sophia_g(every=1), "paper.sophia_g", ids("interval-1")),
    "Sophia-G not clipped": Case(sophia_g(clip=False), "paper.sophia_g", ids("clip-none")),
    "Sophia-G, the old Hessian": Case(sophia_g(old=True), "paper.sophia_g", ids("used-old")),
    "Sophia-G, eps added": Case(sophia_g(added=True), "paper.sophia_g", ids("eps-outside")),
    "Sophia uncorrected": Case(sophia_h(correct=False), SOPHIA, ids("correction-none")),
    "Sophia, the new Hessian": Case(sophia_h(late=False), SOPHIA, ids("used-new")),
    "Sophia, β₂": Case(sophia_h(b2=0.9), SOPHIA, ids("b2")),
    "Sophia-G instead of the Hessian": Case(
        SophiaWithHessian(squared=True), "paper.sophia", ids("hessian-squared-gradient")
    ),
    "LAMB uncorrected": Case(
        lamb(correct=False), functools.partial(optax.lamb, LR), ids("first_correction-none", "second_correction-none")
    ),
}  # fmt: skip
