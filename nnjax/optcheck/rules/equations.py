"""A form as the equations that one reads in a paper."""

import itertools

from nnjax.optcheck.rules.rule_choices import used
from nnjax.optcheck.rules.update_rule import Form, Hyper

CLIP = {"value": "clip(g, ±c)", "global norm": "g · min(1, c/‖all g‖)", "leaf norm": "g · min(1, c/‖g‖)"}
FIRST = {
    "ema": "β₁ m + (1 - β₁) g",
    "trace": "β₁ m + g",
    "lion": "β₂ m + (1 - β₂) g",
    "with b2": "β₂ m + (1 - β₂) g",
    "mixed": "β₁ m + (1 - β₂) g",
    "swapped": "(1 - β₁) m + β₁ g",
    "mean": "m + (g - m)/t",
}
SECOND = {
    "ema": "β₂ v + (1 - β₂) g²",
    "centered": "β₂ v + (1 - β₂) g²",
    "trace": "β₂ v + g²",
    "sum": "v + g²",
    "largest": "max(β₂ v, |g|)",
    "largest with eps": "max(β₂ v, |g| + ε)",
    "belief": "β₂ v + (1 - β₂) (g - m)²",
    "belief before": "β₂ v + (1 - β₂) (g - m_before)²",
    "yogi": "v - (1 - β₂) sign(v - g²) g²",
    "absolute": "β₂ v + (1 - β₂) |g|",
    "of m": "β₂ v + (1 - β₂) m²",
    "with b1": "β₁ v + (1 - β₁) g²",
    "mixed": "β₂ v + (1 - β₁) g²",
    "swapped": "(1 - β₂) v + β₂ g²",
    "on m": "β₂ m + (1 - β₂) g²",
    "mean": "v + (g² - v)/t",
}
CORRECTED = {
    "none": "{x}",
    "t": "{x} / (1 - {b}ᵗ)",
    "t + 1": "{x} / (1 - {b}ᵗ⁺¹)",
    "constant": "{x} / (1 - {b})",
    "multiplied": "{x} · (1 - {b}ᵗ)",
    "linear": "{x} / (1 - {b} t)",
    "swapped": "{x} / (1 - {other}ᵗ)",
}
COUNTER = {
    "t": "t = 1, 2, …",
    "ahead": "t = 2, 3, …",
    "behind": "t = 0, 1, …",
    "stuck": "t = 1, 1, …",
    "per leaf": "t = leaves·(step - 1) + leaf + 1",
}
VELOCITY = {
    "trace": "μ b + {d}",
    "ema": "μ b + (1 - μ) {d}",
    "dampened": "μ b + (1 - τ) {d}, at first {d}",
    "dampened at once": "μ b + (1 - τ) {d}",
}
NESTEROV = {"none": "b", "standard": "({d} + μ b)", "of the new": "((1 + μ) {d} + μ² b)", "old": "b_before"}
CONSTANT = 1e5  # momentum decays from here on leave NAdam's momentum as it is
RATE = {"now": "λ", "next": "λ(step + 1)", "previous": "λ(step - 1)", "over root t": "λ/√t"}
SYMBOLS = {
    "learning_rate": "λ",
    "b1": "β₁",
    "b2": "β₂",
    "eps": "ε",
    "eps_root": "ε_root",
    "momentum": "μ",
    "dampening": "τ",
    "weight_decay": "w",
    "momentum_decay": "ψ",
    "first_start": "m₀",
    "second_start": "v₀",
    "clip": "c",
    "trust": "η",
}


def equations(form: Form, hyper: Hyper) -> list[str]:
    """The lines of a step in their order, and the hyper-parameters."""
    lines = []
    if form.clip != "none":
        lines.append(f"g ← {CLIP[form.clip]}")
    if form.decay in ("l2", "l2 in m"):
        lines.append("g ← g + w θ" + (" (for m only)" if form.decay == "l2 in m" else ""))
    if form.first != "none":
        lines.append(f"m ← {FIRST[form.first]}" + _kept(form.first_kept, "m"))
    if form.second != "none":
        grows = (" + ε_root" if hyper.eps_root > 0 else " + ε") if "grows" in form.eps else ""
        lines.append(f"v ← {SECOND[form.second]}{grows}" + _kept(form.second_kept, "v"))
    if form.second == "centered":
        lines.append("ḡ ← β₂ ḡ + (1 - β₂) g")
    if form.maximum != "none":
        lines.append(f"v_max ← max(v_max, {'v̂' if form.maximum == 'corrected' else 'v'})")
    varying = form.numerator == "nadam" and hyper.momentum_decay < CONSTANT
    lines += ["μ_t = β₁ (1 - ½ · .96^(ψ t))"] if varying else []
    direction = _direction(form, varying)
    if form.velocity != "none":
        d = "g" if direction == "g" else "d"
        lines += [] if direction == "g" else [f"d = {direction}"]
        d = f"{RATE[form.rate]} {d}" if form.rate_place == "inside" else d
        lines.append(f"b ← {VELOCITY[form.velocity].format(d=d)}")
        direction = NESTEROV[form.nesterov].format(d=d)
    lines.append(_update(form, direction))
    if "t" in form.first_correction + form.second_correction or form.numerator == "nadam":
        lines.append(COUNTER[form.counter])
    return [*lines, numbers(form, hyper)]


def numbers(form: Form, hyper: Hyper) -> str:
    """The hyper-parameters that a form uses."""
    names = used(form) + [name for name in ("first_start", "second_start", "eps_root") if getattr(hyper, name) != 0]
    names += ["momentum_decay"] if form.numerator == "nadam" and hyper.momentum_decay < CONSTANT else []
    return ", ".join(f"{SYMBOLS[name]} = {getattr(hyper, name):.6g}" for name in names)


def _direction(form: Form, varying: bool) -> str:
    m = _moment("m" if form.first != "none" else "g", form.first_used)
    if form.first == "lion":
        m = "β₁ m_before + (1 - β₁) g"
    m = CORRECTED[form.first_correction].format(x=_bracketed(m), b="β₁", other="β₂") if form.first != "none" else m
    if form.numerator == "nadam" and varying:
        m = "μ_t₊₁ m / (1 - μ₁…μ_t₊₁) + (1 - μ_t) g / (1 - μ₁…μ_t)"
    elif form.numerator == "nadam":
        m = "β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ)"
    elif form.numerator == "lookahead":
        m = CORRECTED[form.first_correction].format(x="(β₁ m + (1 - β₁) g)", b="β₁", other="β₂")
    plain = m
    m = f"{m} + w θ" if form.decay == "divided" else m
    if form.second != "none":
        m = _divided(form, _bracketed(m))
    if form.rectified != "none":
        m = f"r_t {m} where ρ_t > {form.rectified.removeprefix('above ')}, else {plain}"
    m = f"sign{m if _bracketed(m) == m and m[0] == '(' else f'({m})'}" if form.sign == "sign" else m
    m = f"√(s + ε) · {m}, s ← β₂ s + (1 - β₂) d²" if form.rescaled == "adadelta" else m
    return f"η ‖θ‖/‖{m}‖ · {m}" if form.trust == "lars" else m


def _divided(form: Form, numerator: str) -> str:
    v = "v_max" if form.maximum == "raw" else _moment("v", form.second_used)
    v = f"({v} - ḡ²)" if form.second == "centered" else v
    hat = "v_max" if form.maximum == "corrected" else CORRECTED[form.second_correction].format(x=v, b="β₂", other="β₁")
    correction = (
        CORRECTED[form.second_correction].format(x="1", b="β₂", other="β₁") if form.second_correction != "none" else "1"
    )
    linear = form.second in ("largest", "largest with eps", "absolute") or form.root == "none"

    def root(x: str) -> str:
        return _bracketed(x) if linear else f"√{_bracketed(x)}"

    scale = "" if correction == "1" else f" · {root(correction)}"
    denominators = {
        "none": root(hat),
        "grows": f"({root(hat)} + ε)",
        "grows alone": root(hat),
        "outside": f"({root(hat)} + ε)",
        "inside": root(f"{hat} + ε"),
        "before correction": f"(({root(v)} + ε){scale})" if scale else f"({root(v)} + ε)",
        "inside before correction": f"({root(f'{v} + ε')}{scale})" if scale else root(f"{v} + ε"),
        "floor": f"max({root(hat)}, ε)",
        "over the root": "",
    }
    if form.eps == "over the root":
        return f"{numerator} · (1 / {root(hat)} + ε)"
    return f"{numerator} / {denominators[form.eps]}"


def _update(form: Form, direction: str) -> str:
    rate = "" if form.rate_place == "inside" else RATE[form.rate] + " "
    down = "-" if form.direction == "down" else "+"
    if form.trust == "lamb":
        whole = f"({direction} + w θ)" if form.decay == "decoupled" else direction
        return f"θ ← θ {down} {rate}‖θ‖/‖·‖ {whole}"
    decay = {
        "decoupled": " - λ w θ",
        "without rate": " - w θ",
        "of the updated": " - λ w θ_updated",
        "growing": " + λ w θ",
    }.get(form.decay, "")
    return f"θ ← θ {down} {rate}{direction}{decay}"


def _bracketed(text: str) -> str:
    """In brackets, if it is a sum, a product or a ratio that is not in brackets as a whole."""
    depths = list(itertools.accumulate((char == "(") - (char == ")") for char in text))
    whole = text.startswith("(") and 0 not in depths[:-1]
    return text if whole or " " not in text else f"({text})"


def _moment(name: str, used_: str) -> str:
    return name if used_ == "new" else f"{name}_before"


def _kept(kept: str, name: str) -> str:
    return {"corrected": f"   (stored as {name}̂)", "lost": "   (not stored)"}.get(kept, "")
