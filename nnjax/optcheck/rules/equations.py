"""Write an update rule as equations, as in a paper."""

import itertools

from nnjax.optcheck.rules.neighbours import hyper_names, is_relevant
from nnjax.optcheck.rules.update_rule import LAMB, LION, STARTS, Formula, HyperParams, UpdateRule, is_linear

CLIP = {
    "value": "clip(g, ±c)",
    "global norm": "g · min(1, c/‖all g‖)",
    "squared global norm": "g · min(1, c/‖all g‖²)",
    "global norm of sizes": "g · min(1, c/√(sum of all |g|))",
    "global 1-norm": "g · min(1, c/(sum of all |g|))",
    "global sum of norms": "g · min(1, c/(‖g₁‖ + ‖g₂‖ + …))",
    "leaf norm": "g · min(1, c/‖g‖)",
    "scaled leaf norm": "c g / ‖g‖",
    "scaled global norm": "c g / ‖all g‖",
    "unit leaf norm": "g / (‖g‖ + ε)",
    "unit global norm": "g / (‖all g‖ + ε)",
}
FIRST = {
    "ema": "β₁ m + (1 - β₁) g",
    "trace": "β₁ m + g",
    "lion": "β₂ m + (1 - β₂) g",
    "lion trace": "β₂ m + g",
    "lion full gradient": "β₂ m + (1 - β₂) g",
    "lion new m": "β₂ m + (1 - β₂) g",
    "lion of signs": "β₂ m + (1 - β₂) sign(g)",
    "lion of steps": "β₂ m + (1 - β₂) sign(β₁ m + (1 - β₁) g)",
    "lion stored step": "sign(β₁ m + (1 - β₁) g)",
    "lion precedence": "β₂ m + (1 - β₂) g",
    "lion swapped": "β₂ m + (1 - β₂) g",
    "lion stored precedence": "β₂ m + 1 - β₂ g",
    "with b2": "β₂ m + (1 - β₂) g",
    "with power": "β₁ᵗ m + (1 - β₁ᵗ) g",
    "with schedule": "μ_t m + (1 - μ_t) g",
    "another rate": "β₃ m + (1 - β₃) g",
    "mixed": "β₁ m + (1 - β₂) g",
    "swapped": "(1 - β₁) m + β₁ g",
    "precedence": "β₁ m + 1 - β₁ g",
    "without b1": "m + (1 - β₁) g",
    "sum": "m + g",
    "both": "β₁ (m + g)",
    "both average": "β₁ (m + (1 - β₁) g)",
    "minus": "β₁ m - (1 - β₁) g",
    "v for m": "β₁ v + (1 - β₁) g",
    "mean": "m + (g - m)/t",
    "gradient": "g",
    "ema from first": "β₁ m + (1 - β₁) g (first step: g)",
}
LION_STEP = {
    "lion full gradient": "β₁ m_old + g",
    "lion new m": "β₁ m + (1 - β₁) g",
    "lion precedence": "β₁ m_old + 1 - β₁ g",
    "lion swapped": "(1 - β₁) m_old + β₁ g",
}
SECOND = {
    "ema": "β₂ v + (1 - β₂) g²",
    "centered": "β₂ v + (1 - β₂) g²",
    "centered old mean": "β₂ v + (1 - β₂) g²",
    "centered plus": "β₂ v + (1 - β₂) g²",
    "trace": "β₂ v + g²",
    "sum": "v + g²",
    "largest": "max(β₂ v, |g|)",
    "largest ever": "max(v, |g|)",
    "largest ever with eps": "max(v, |g| + ε)",
    "largest of m": "max(β₂ v, |m|)",
    "largest of m with eps": "max(β₂ v, |m| + ε)",
    "largest weighted": "max(β₂ v, (1 - β₂) |g|)",
    "largest weighted with eps": "max(β₂ v, (1 - β₂) |g| + ε)",
    "largest with eps": "max(β₂ v, |g| + ε)",
    "belief": "β₂ v + (1 - β₂) (g - m)²",
    "belief absolute": "β₂ v + (1 - β₂) |g - m|",
    "belief plus": "β₂ v + (1 - β₂) (g + m)²",
    "belief old m": "β₂ v + (1 - β₂) (g - m_old)²",
    "belief corrected": "β₂ v + (1 - β₂) (g - m / (1 - β₁ᵗ))²",
    "yogi": "v - (1 - β₂) sign(v - g²) g²",
    "yogi wrong sign": "v + (1 - β₂) sign(v - g²) g²",
    "absolute": "β₂ v + (1 - β₂) |g|",
    "absolute in root": "β₂ v + (1 - β₂) |g|",
    "absolute sum": "v + |g|",
    "largest square": "max(v, g²)",
    "cubed": "β₂ v + (1 - β₂) g³",
    "product": "β₂ v + (1 - β₂) g m",
    "m squared": "β₂ v + (1 - β₂) m²",
    "with b1": "β₁ v + (1 - β₁) g²",
    "with power": "β₂ᵗ v + (1 - β₂ᵗ) g²",
    "another rate": "β₃ v + (1 - β₃) g²",
    "mixed": "β₂ v + (1 - β₁) g²",
    "swapped": "(1 - β₂) v + β₂ g²",
    "precedence": "β₂ v + 1 - β₂ g²",
    "without b2": "v + (1 - β₂) g²",
    "both": "β₂ (v + g²)",
    "both average": "β₂ (v + (1 - β₂) g²)",
    "squared weight": "β₂ v + ((1 - β₂) g)²",
    "minus": "β₂ v - (1 - β₂) g²",
    "m for v": "β₂ m + (1 - β₂) g²",
    "old m for v": "β₂ m_old + (1 - β₂) g²",
    "mean": "v + (g² - v)/t",
    "gradient": "β₂ v + (1 - β₂) g",
    "ema from first": "β₂ v + (1 - β₂) g² (first step: g²)",
    "twice the gradient": "β₂ v + (1 - β₂) 2 g",
    "largest with sign": "max(β₂ v, g)",
}
SCOPE = {"element": "g²", "leaf mean": "mean(g²)", "leaf norm": "‖g‖²", "global norm": "‖all g‖²"}
GRADIENT_DECAY = {
    "l2": "+ w θ",
    "l2 and decoupled": "+ w θ",
    "l2 in m": "+ w θ (for m only)",
    "l2 in v": "+ w θ (for v only)",
    "l2 wrong sign": "- w θ",
    "l1": "+ w sign(θ)",
}
CORRECTION = {
    "none": "{x}",
    "t": "{x} / (1 - {b}ᵗ)",
    "t + 1": "{x} / (1 - {b}ᵗ⁺¹)",
    "constant": "{x} / (1 - {b})",
    "multiplied": "{x} · (1 - {b}ᵗ)",
    "linear": "{x} / (1 - {b} t)",
    "power": "{x} / (1 - {b})ᵗ",
    "root": "{x} / √(1 - {b}ᵗ)",
    "squared": "{x} / (1 - {b}ᵗ)²",
    "swapped": "{x} / (1 - {b_wrong}ᵗ)",
    "another rate": "{x} / (1 - β₃ᵗ)",
    "count": "{x} / t",
    "compounding": "{x} / ∏ᵢ₌₁…ₜ(1 - {b}ⁱ)",
    "subtracted": "({x} - {b}ᵗ)",
}
RHO = {  # ρ_t of RAdam
    "t": "ρ_∞ - 2 t β₂ᵗ/(1 - β₂ᵗ)",
    "t + 1": "ρ_∞ - 2 (t + 1) β₂ᵗ⁺¹/(1 - β₂ᵗ⁺¹)",
    "without 2": "ρ_∞ - t β₂ᵗ/(1 - β₂ᵗ)",
    "with b1": "ρ_∞ - 2 t β₂ᵗ/(1 - β₁ᵗ)",
    "precedence": "ρ_∞ - 2 t β₂ᵗ/1 - β₂ᵗ",
    "wrong limit": "ρ_∞ - 2 t β₂ᵗ/(1 - β₂ᵗ)",
}
RECTIFIER = "(ρ_t - 4) (ρ_t - 2) ρ_∞ / ((ρ_∞ - 4) (ρ_∞ - 2) ρ_t)"
COUNTER = {
    "t": "t = 1, 2, …",
    "ahead": "t = 2, 3, …",
    "behind": "t = 0, 1, …",
    "late": "t = 1, 1, 2, …",
    "stuck": "t = 1, 1, …",
    "double": "t = 2, 4, …",
    "per leaf": "t = leaves·(step - 1) + leaf + 1",
    "per leaf and step": "t = (leaves + 1)·(step - 1) + leaf + 2",
}
VELOCITY = {
    "trace": "μ b + {d}",
    "ema": "μ b + (1 - μ) {d}",
    "sum": "b + μ {d}",
    "precedence": "μ b + 1 - μ {d}",
    "both": "μ (b + {d})",
    "dampened": "μ b + (1 - τ) {d} (first step: {d})",
    "dampened at once": "μ b + (1 - τ) {d}",
}
NESTEROV = {
    "none": "b",
    "standard": "({d} + μ b)",
    "weighted": "((1 - μ) {d} + μ b)",
    "swapped": "(μ {d} + b)",
    "new velocity": "((1 + μ) {d} + μ² b)",
    "and gradient": "({d} + b)",
    "old velocity": "b_old",
    "without gradient": "μ b",
    "old velocity added": "((1 + μ) b + μ b_old)",
    "one minus": "((1 - μ) b - μ b_old)",
    "corrected": "b / (1 - μᵗ)",
}
EXTREME = {  # `UpdateRule.maximum`; the second moment is inserted, corrected if the choice says so
    "corrected": "v_max ← max(v_max, {v})",
    "raw": "v_max ← max(v_max, {v})",
    "corrected twice": "v_max ← max(v_max, {v})",
    "smallest": "v_min ← min(v_min, {v}), starting at ∞",
    "smallest corrected": "v_min ← min(v_min, {v}), starting at ∞",
}
ROOT = {"twice": "√√", "cube": "∛"}
RESCALING = {  # the next average of squared steps
    "squares": "β₂ s + (1 - β₂) d²",
    "sum": "s + d²",
    "trace": "β₂ s + d²",
    "sizes": "β₂ s + (1 - β₂) |d|",
    "gradients": "β₂ s + (1 - β₂) g²",
    "none": "0",
}
CONSTANT_MOMENTUM = 1e5  # at this momentum decay or above, NAdam's momentum equals β₁ up to rounding
SCHEDULE = {
    "current": "λ",
    "next": "λ(step + 1)",
    "previous": "λ(step - 1)",
    "inverse root": "λ/√t",
    "inverse": "λ/t",
    "inverse time": "λ/(1 + κ (t - 1))",
    "inverse time from 1": "λ/(1 + κ t)",
    "inverse root time": "λ/√(1 + κ (t - 1))",
    "inverse root time from 1": "λ/√(1 + κ t)",
    "corrected": "λ √(1 - β₂ᵗ)/(1 - β₁ᵗ) ·",
    "compounding": "λ/∏ᵢ₌₁…ₜ(1 + κ (i - 1)) ·",
    "compounding from 1": "λ/∏ᵢ₌₁…ₜ(1 + κ i) ·",
    "exponential from 1": "λ (1 - κ)ᵗ",
    "exponential": "λ (1 - κ)ᵗ⁻¹",
    "warm-up": "λ min(1, κ t)",
    "linear": "λ max(0, 1 - κ (t - 1))",
    "cosine": "λ ½ (1 + cos(π min(1, κ (t - 1))))",
    "stepwise": "λ (1 - κ)^⌊(t - 1)/n⌋",
    "stepwise from 1": "λ (1 - κ)^⌊t/n⌋",
}
SYMBOLS = {
    "learning_rate": "λ",
    "b1": "β₁",
    "b2": "β₂",
    "eps": "ε",
    "eps_root": "ε_root",
    "eps_state": "ε_v",
    "momentum": "μ",
    "dampening": "τ",
    "weight_decay": "w",
    "momentum_decay": "ψ",
    "first_start": "m₀",
    "second_start": "v₀",
    "velocity_start": "b₀",
    "rescaling_start": "s₀",
    "clip": "c",
    "trust": "η",
    "gamma": "γ",
    "b3": "β₃",
    "power": "κ",
    "floor": "ε₂",
    "distance": "d₀",
    "delta": "δ",
    "ratio": "ρ",
    "rate_decay": "κ",
    "period": "n",
}


def equations(formula: Formula) -> list[str]:
    """Return the equations of one step in order, followed by a line with the hyper-parameters."""
    rule, hyper = formula
    lines = [f"g ← {rule.rounding}(g)"] if rule.rounding != "none" else []
    lines += ["g ← sum of all g so far"] if rule.accumulation != "none" else []
    lines += ["g ← g + γ β₁/(1 - β₁) (g - g_old)"] if rule.variance != "none" else []
    lines += ["g ← g - mean(g) of each row"] if rule.centre != "none" else []
    if rule.clip in CLIP:
        lines.append(f"g ← {CLIP[rule.clip]}")
    if rule.decay in GRADIENT_DECAY:
        lines.append(f"g ← g {GRADIENT_DECAY[rule.decay]}")
    if _has_varying_momentum(formula):
        half = "½ · " if rule.momentum_schedule == "half" else ""
        lines.append(f"μ_t = β₁ (1 - {half}.96^(ψ t))" + _product(rule.product_storage))
    if rule.first != "none":
        lines.append(f"m ← {FIRST[rule.first]}" + _storage(rule.first_storage, "m"))
    if rule.second != "none":
        eps = (" + ε_v" if hyper.eps_state > 0 else " + ε") if "in state" in rule.eps else ""
        second = f"{SECOND[rule.second].replace('g²', SCOPE[rule.second_scope])}{eps}"
        second = f"max(v, {second})" if rule.maximum == "in v" else second
        lines.append(f"v ← {second}" + _storage(rule.second_storage, "v"))
    if "centered" in rule.second:
        lines.append("ḡ ← β₂ ḡ + (1 - β₂) g")
    if rule.maximum in EXTREME:
        v = _corrected_second(rule, "v") if "corrected" in rule.maximum else "v"
        lines.append(EXTREME[rule.maximum].format(v=v))
    definitions, direction = _direction(formula)
    lines += definitions
    if added := {"in velocity": " + w θ", "of m": " + w m"}.get(rule.decay, ""):
        is_defined = rule.velocity not in ("none", "before division") or rule.clip.startswith("step ")
        direction = f"{direction}{added}" if is_defined else f"({direction}{added})"
    if rule.velocity == "before division":
        lines.append("b ← μ b + g")
    elif rule.velocity != "none":
        d = "g" if direction == "g" else "d"
        lines += [] if direction in ("g", "d") else [f"d {'←' if definitions else '='} {direction}"]
        d = f"{SCHEDULE[rule.schedule]} {d}" if rule.rate_position != "outside" else d
        lines.append(f"b ← {VELOCITY[rule.velocity].format(d=d)}" + _storage(rule.velocity_storage, "b"))
        direction = NESTEROV[rule.nesterov].format(d=d)
    if rule.clip.startswith("step "):
        lines += [] if direction == "d" else [f"d {'←' if _defines_d(lines) else '='} {direction}"]
        direction = CLIP[rule.clip.removeprefix("step ")].replace("g", "d")
    lines.append(_parameters(rule, direction))
    if is_relevant(rule, "counter"):
        lines.append(COUNTER[rule.counter])
    return [*lines, _numbers(formula)]


def _numbers(formula: Formula) -> str:
    """Format the hyper-parameters that the rule uses."""
    rule, hyper = formula
    names = hyper_names(rule)
    used = {name: getattr(rule, name.removesuffix("_start")) != "none" for name in STARTS}
    used |= {"eps_root": rule.second != "none", "eps_state": "in state" in rule.eps}
    names += [name for name, is_used in used.items() if is_used and getattr(hyper, name) != 0]
    names += ["momentum_decay"] if _has_varying_momentum(formula) else []
    return numbers(names, hyper)


def numbers(names: list[str], hyper: HyperParams) -> str:
    """Format hyper-parameters with their symbols, such as "λ = 0.001, ε = 1e-08"."""
    return ", ".join(f"{SYMBOLS[name]} = {getattr(hyper, name):.6g}" for name in names)


def _has_varying_momentum(formula: Formula) -> bool:
    return formula.rule.numerator == "nadam" and formula.hyper.momentum_decay < CONSTANT_MOMENTUM


def _defines_d(lines: list[str]) -> bool:
    return any(line.startswith("d = ") for line in lines)


def _direction(formula: Formula) -> tuple[list[str], str]:
    """Return the expression of the step before the velocity and the learning rate, and equations that define it.

    If the step has a condition, or is part of another equation, it is defined as d, so terms that are added to the
    expression cannot be mistaken for terms of these equations.
    """
    rule = formula.rule
    plain = "b" if rule.velocity == "before division" else "g"
    m = plain if rule.first == "none" else _moment("m", rule.first_lag)
    if rule.first in LION:
        m = LION_STEP.get(rule.first, "β₁ m_old + (1 - β₁) g")
    if rule.first != "none":
        m = CORRECTION[rule.first_correction].format(x=_bracket(m), b="β₁", b_wrong="β₂")
    if rule.numerator == "nadam":
        m = _look_ahead(rule, _has_varying_momentum(formula))
    elif rule.numerator == "plus gradient":
        m = f"{m} + g"
    elif rule.numerator == "lookahead":
        m = CORRECTION[rule.first_correction].format(x="(β₁ m + (1 - β₁) g)", b="β₁", b_wrong="β₂")
    elif rule.numerator == "lookahead without correction":
        m = CORRECTION[rule.first_correction].format(x="β₁ m", b="β₁", b_wrong="β₂") + " + (1 - β₁) g"
    d = f"{m} + w θ" if rule.decay == "preconditioned" else m
    if rule.second != "none":
        d = _ratio(rule, _bracket(d))
    definitions: list[str] = []
    if rule.rectification != "none":
        d = _ratio(rule, _moment("m", rule.first_lag)) if rule.rectifier == "raw m" else d
        definitions, d = _rectified(rule, f"{m} + w θ" if rule.decay == "preconditioned" else m, d), "d"
    if rule.sign != "none":
        d = f"{rule.sign}{d if d[0] == '(' and _bracket(d) == d else f'({d})'}"
    if rule.rescaling != "none":
        root = "(√s + ε)" if rule.rescaling_eps == "outside" else "√(s + ε)"
        step = f"{'(s + ε)' if rule.rescaling == 'adadelta without root' else root} · {d}"
        definitions += [f"d {'←' if definitions else '='} {step}", f"s ← {RESCALING[rule.rescaling_average]}"]
        definitions += [f"d ← {step}"] if rule.rescaling_lag == "none" else []
        d = "d"
    return definitions, f"η ‖θ‖/‖{d}‖ · {d}" if rule.trust == "lars" else d


def _look_ahead(rule: UpdateRule, varies: bool) -> str:
    """Return the numerator of NAdam, with a momentum that varies or is β₁."""
    mu, mu_next, product = ("μ_t", "μ_t₊₁", "μ₁…μ_t") if varies else ("β₁", "β₁", "β₁ᵗ")
    next_product = "μ₁…μ_t₊₁" if varies else "β₁ᵗ⁺¹"
    if rule.product_storage == "power":
        product, next_product = "μ_tᵗ", "μ_tᵗ μ_t₊₁"
    if rule.ahead_factor == "current everywhere":
        mu_next, next_product = mu, f"{product} {mu}"
    factor = {"current": f"{mu} ", "none": "", "swapped": "(1 - β₁) "}.get(rule.ahead_factor, f"{mu_next} ")
    correction = {"next": f" / (1 - {next_product})", "current": f" / (1 - {product})", "none": ""}
    weight = {"1 - b1": f"(1 - {mu}) g", "one": "g", "none": ""}[rule.gradient_weight]
    weight = "β₁ g" if rule.ahead_factor == "swapped" else weight
    share = f" + {weight}" + (f" / (1 - {product})" if rule.gradient_correction == "t" else "")
    return f"{factor}m{correction[rule.ahead_correction]}{share if weight else ''}"


def _rectified(rule: UpdateRule, m: str, d: str) -> list[str]:
    """Return the equations of RAdam's step d."""
    below = {"corrected m": m, "raw m": "m", "gradient": "g", "no step": "0"}[rule.below]
    r = f"√({RECTIFIER})"
    r = {"missing": "1", "without root": RECTIFIER, "inverted": f"1 / {r}"}.get(rule.rectifier, r)
    return [
        f"ρ_∞ = 2/(1 - β₂){'' if rule.rho == 'wrong limit' else ' - 1'}",
        f"ρ_t = {RHO[rule.rho]}",
        f"r_t = {r}",
        f"d = r_t {d} if ρ_t > {4 if rule.rectification == 'above 4' else 5}, else {below}",
    ]


def _corrected_second(rule: UpdateRule, v: str) -> str:
    """Return the second moment with its bias correction."""
    return CORRECTION[rule.second_correction].format(x=v, b="β₂", b_wrong="β₁")


def _ratio(rule: UpdateRule, numerator: str) -> str:
    """Return the expression that divides the numerator by the root of the second moment."""

    def root(x: str) -> str:
        if is_linear(rule):
            return _bracket(x)
        return f"{ROOT.get(rule.root, '√')}{_bracket(x)}"

    extreme = EXTREME.get(rule.maximum, "").partition(" ")[0]
    v = extreme if rule.maximum in ("raw", "smallest", "corrected twice") else _moment("v", rule.second_lag)
    mean = {"centered": " - ḡ²", "centered old mean": " - ḡ_old²", "centered plus": " + ḡ²"}.get(rule.second, "")
    v = f"({v}{mean})" if mean else v
    v_hat = extreme if rule.maximum in ("corrected", "smallest corrected") else _corrected_second(rule, v)
    v_hat = f"min(0, {v_hat})" if rule.maximum == "minimum" else v_hat
    scale = "" if rule.second_correction in ("none", "subtracted") else f" · {root(_corrected_second(rule, '1'))}"
    if rule.eps == "after division":
        return f"{numerator} · (1 / {root(v_hat)} + ε)"
    denominators = {
        "none": root(v_hat),
        "none with NaN": root(v_hat),
        "added to the step": root(v_hat),
        "in state": f"({root(v_hat)} + ε)",
        "in state only": root(v_hat),
        "outside": f"({root(v_hat)} + ε)",
        "inside": root(f"{v_hat} + ε"),
        "inside and outside": f"({root(f'{v_hat} + ε')} + ε)",
        "before correction": f"(({root(v)} + ε){scale})" if scale else f"({root(v)} + ε)",
        "inside before correction": f"({root(f'{v} + ε')}{scale})" if scale else root(f"{v} + ε"),
        "floor": f"max({root(v_hat)}, ε)",
    }
    return f"{numerator} {'·' if rule.root == 'multiplied' else '/'} {denominators[rule.eps]}"


def _parameters(rule: UpdateRule, direction: str) -> str:
    """Return the equation that updates the parameters."""
    inside = rule.rate_position == "inside" and is_relevant(rule, "rate_position")
    scheduled = SCHEDULE[rule.schedule]
    rate = "" if inside else scheduled + " "
    sign = "-" if rule.direction == "down" else "+"
    if rule.trust in LAMB:
        step = f"({direction} + w θ)" if rule.decay in ("decoupled", "l2 and decoupled") else direction
        ratio = {"lamb clipped": "min(‖θ‖, 10)/‖·‖", "lamb inverted": "‖·‖/‖θ‖"}.get(rule.trust, "‖θ‖/‖·‖")
        return f"θ ← θ {sign} {rate}{ratio} {step}{f' - {scheduled} w θ' if rule.decay == 'after trust' else ''}"
    decay = {
        "decoupled": f" - {scheduled} w θ",
        "l2 and decoupled": f" - {scheduled} w θ",
        "without rate": " - w θ",
        "after update": f" - {scheduled} w θ_new",
        "wrong sign": f" + {scheduled} w θ",
    }.get(rule.decay, "")
    eps = f" {sign} ε" if rule.eps == "added to the step" else ""
    return f"θ ← θ {sign} {rate}{direction}{eps}{decay}"


def _bracket(text: str) -> str:
    """Enclose a sum, product or ratio in parentheses, unless it is already enclosed."""
    depths = list(itertools.accumulate((char == "(") - (char == ")") for char in text))
    enclosed = text.startswith("(") and 0 not in depths[:-1]
    return text if enclosed or " " not in text else f"({text})"


def _moment(name: str, lag: str) -> str:
    return name if lag == "none" else f"{name}_old"


def _product(storage: str) -> str:
    return "" if storage != "float32" else "   (μ₁…μ_t is rounded to float32)"


def _storage(storage: str, name: str) -> str:
    special = {
        "raw": "",
        "corrected": f"   (stored as {name}̂)",
        "none": "   (not stored)",
        "root": "   (stored as √v)",
        "denominator": "   (stored as the denominator)",
        "look-ahead": "   (stored as the step)",
    }
    return special.get(storage, f"   (stored in {storage.partition(' ')[0]})")
