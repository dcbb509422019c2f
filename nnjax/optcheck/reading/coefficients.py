"""Find a formula in the step t for the coefficients of an equation."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

SAME = 1e-6  # largest relative difference of equal coefficients
ROUGH = 1e-4  # the same for coefficients that have no other formula, because rounding affects small updates
SHOWN = 5  # number of coefficients that are listed if no formula is found
USUAL = (0.9, 0.99, 0.999, 0.95)  # other decay rates, tried if those of both optimizers do not fit
MOST_CHANGES = 3  # with more changes, only the first coefficients are listed
LEAST = 6  # smallest number of steps from which a power of t or of a number is concluded
LESS_ROUGH = 1e-5  # the same for products, in which errors accumulate
PLAIN = 1e-5  # largest distance of a number in t + a from one with two decimals
WARM_UPS = {1: "{}", 2: "{}²", 3: "{}³"}  # powers of a warm-up
LEAST_GROWING = 3  # smallest number of steps before a schedule is constant
NOT_FIRST = "[0, 1 from t = 2]"  # factor of terms that are left out at the first step
POWERS = {  # power of 1 - βᵗ: factors of the numerator and of the denominator
    -1.0: ("", "(1 - {b}{t})"),
    0.5: ("√(1 - {b}{t})", ""),
    1.0: ("(1 - {b}{t})", ""),
    -0.5: ("", "√(1 - {b}{t})"),
}
OF_T = {0.0: ("", ""), -1.0: ("", "t"), -0.5: ("", "√t"), 1.0: ("t", ""), 0.5: ("√t", "")}  # power of t


Shape = tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]  # values, and factors above and below the fraction bar


class Factor(NamedTuple):
    """A factor of a term: a number, and factors that depend on t."""

    number: float
    above: tuple[str, ...] = ()  # in the numerator
    below: tuple[str, ...] = ()  # in the denominator

    def __str__(self) -> str:
        return product(self, "")


def factor_of(values: np.ndarray, betas: Sequence[float]) -> Factor:
    """Return a formula for coefficients (steps,), such as 0.001 √(1 - 0.999ᵗ) / (1 - 0.9ᵗ), or the first values.

    Args:
      values: the coefficients at steps t = 1, 2, …; NaN where they are unknown.
      betas: decay rates that corrections may contain.
    """
    valid = np.isfinite(values)
    known, t = values[valid], np.arange(1, len(values) + 1)[valid]
    if known.size == 0:
        return Factor(0.0)
    for rates in (tuple(betas), (*betas, *USUAL)):
        if (factor := _formula(t, known, list(shapes_of(t, dict.fromkeys(rates))))) is not None:
            return factor
        if (factor := _limited(t, known, list(shapes_of(t, dict.fromkeys(rates))))) is not None:
            return factor
    if known[0] == 0 and t[0] == 1 and known.all() != known[1:].all():
        later = factor_of(np.where(np.arange(len(values)) == 0, np.nan, values), betas)
        if not any("[" in part for part in later.above):
            return later._replace(above=(NOT_FIRST, *later.above))
    sign = -1.0 if (known <= 0).all() and known.any() else 1.0
    return Factor(sign, (_listed(t, sign * known + 0.0),))


def _formula(t: np.ndarray, values: np.ndarray, shapes: list[Shape]) -> Factor | None:
    """Return values as a constant or a schedule times one of the shapes, or None."""
    for shape, above, below in shapes:
        ratio = values / shape
        if np.ptp(ratio) <= SAME * np.abs(ratio).max():
            return Factor(_rounded(float(np.median(ratio))), above, below)
    if np.ptp(values) <= ROUGH * np.abs(values).max():
        return Factor(float(f"{np.median(values):.3g}"))
    if (values != 0).all() and values.size >= LEAST:
        for shape, above, below in shapes:
            if (schedule := _schedule(t, values / shape)) is not None:
                return Factor(schedule.number, (*schedule.above, *above), (*schedule.below, *below))
        for shape, above, below in shapes:
            ratio = values / shape
            if np.ptp(ratio) <= LESS_ROUGH * np.abs(ratio).max():
                return Factor(float(f"{np.median(ratio):.3g}"), above, below)
    return None


def _schedule(t: np.ndarray, ratio: np.ndarray) -> Factor | None:
    """Return a formula for values that are exponential, linear or its inverse, or grow to a constant; else None."""
    rates = (ratio[1:] / ratio[:-1])[np.diff(t) == 1]
    rate = float(np.median(rates)) if rates.size else 1.0
    constant = rates.size and np.ptp(rates) <= SAME * np.abs(rates).max() and abs(rate - round(rate, 4)) <= SAME
    if constant and (np.abs(ratio - ratio[-1] * rate ** (t - t[-1])) <= ROUGH * np.abs(ratio)).all():
        return Factor(_rounded(float(ratio[0] / rate ** t[0])), (f"{rate:.4g}ᵗ",))
    if _is_linear(t, ratio):
        slope = float((ratio[-1] - ratio[0]) / (t[-1] - t[0]))
        return Factor(_rounded(slope), (f"(t + {ratio[0] / slope - t[0]:.4g})",))
    growing = np.flatnonzero(np.abs(ratio - ratio[-1]) > SAME * np.abs(ratio[-1]))
    for power, text in WARM_UPS.items():
        slopes = (ratio / ratio[-1])[growing] ** (1 / power) / t[growing]
        if growing.size >= LEAST_GROWING and np.ptp(slopes) <= SAME * np.abs(slopes[0]):
            return Factor(_rounded(float(ratio[-1])), (text.format(f"min(1, {slopes[0]:.4g} t)"),))
    if (both := _inverse_root(t, ratio) or _cosine(t, ratio)) is not None:
        return both
    for power, root in ((1, ""), (2, "√")):
        if _is_linear(t, ratio**-power):
            return _inverse_time(t, ratio, power, root)
    return _quotient(t, ratio) or _product(t, ratio)


def _inverse_root(t: np.ndarray, ratio: np.ndarray) -> Factor | None:
    """Return a formula for values that grow linearly and then fall as 1 / √t, else None."""
    if len(t) < LEAST_GROWING:
        return None
    slope, level = ratio[0] / t[0], ratio[-1] * np.sqrt(t[-1])
    rising = np.abs(ratio - slope * t) <= SAME * np.abs(ratio)
    falling = np.abs(ratio - level / np.sqrt(t)) <= SAME * np.abs(ratio)
    if level * slope <= 0 or not (rising | falling).all() or min(rising.sum(), falling.sum()) < LEAST_GROWING:
        return None
    return Factor(_rounded(float(level)), (f"min({slope / level:.6g} t, 1 / √t)",))


def _cosine(t: np.ndarray, ratio: np.ndarray) -> Factor | None:
    """Return a formula for values k (1 + cos(π (t + a) / T)), which may be 0 at the end, else None."""
    if len(t) < LEAST or (np.diff(t) != 1).any():
        return None
    # the sum of both neighbours of a value is a linear function of it
    neighbours = ratio[2:] + ratio[:-2]
    largest = np.abs(ratio).max()
    terms = np.stack([ratio[1:-1], np.ones(len(t) - 2)], axis=1)
    (slope, constant), *_ = np.linalg.lstsq(terms, neighbours, rcond=None)
    if not 0 < slope < 2 or (np.abs(terms @ (slope, constant) - neighbours) > SAME * largest).any():
        return None
    period, middle = np.pi / np.arccos(slope / 2), constant / (2 - slope)
    for shift in (0, -1, 1):
        angles = np.cos(np.pi * (t + shift) / period)
        size = float((ratio[0] - middle) / angles[0])
        plain = abs(period - round(period)) <= ROUGH * period
        if plain and (np.abs(middle + size * angles - ratio) <= LESS_ROUGH * largest).all():
            inner = f"cos(π {_shifted(shift)} / {round(period)})"
            share = middle / size
            constant = "1" if abs(share - 1) <= LESS_ROUGH else f"{share:.6g}"
            return Factor(_rounded(size), (f"({constant} + {inner})",)) if share > 0 else None
    return None


def _inverse_time(t: np.ndarray, ratio: np.ndarray, power: int, root: str) -> Factor:
    """Return the formula k / (1 + c (t - 1)) or k / (1 + c t) for values of such a form, that with fewer digits.

    For power 2, the denominator is the root of such a sum.
    """
    sign, sums = float(np.sign(ratio[0])), np.abs(ratio) ** -power
    slope = float((sums[-1] - sums[0]) / (t[-1] - t[0]))
    forms = []
    for shift, text in ((1, "(t - 1)"), (0, "t")):
        start = float(sums[0] - slope * (t[0] - shift))
        if start > 0:
            number, rate = sign * _rounded(start ** (-1 / power)), f"{slope / start:.4g}"
            digits = len(f"{number:g}{rate}".replace(".", "").replace("0", ""))
            forms.append((digits, Factor(number, (), (f"{root}(1 + {rate} {text})",))))
    return min(forms, key=lambda form: form[0])[1]


def _quotient(t: np.ndarray, values: np.ndarray) -> Factor | None:
    """Return a formula for values k (t + a) / (t + b), else None."""
    # k t + k a - b y = y t
    terms = np.stack([t, np.ones(len(t)), -values], axis=1)
    (k, constant, b), _, rank, _ = np.linalg.lstsq(terms, values * t, rcond=None)
    if rank < terms.shape[1] or k == 0 or (t + b <= 0).any():
        return None
    a = constant / k
    plain = abs(a - round(a, 2)) <= PLAIN and abs(b - round(b, 2)) <= PLAIN
    if not plain or (np.abs(k * (t + a) / (t + b) - values) > SAME * np.abs(values)).any():
        return None
    return Factor(_rounded(float(k)), (_shifted(a),), (_shifted(b),))


def _shifted(shift: float) -> str:
    """Return the text of t plus a number."""
    shift = round(shift, 2)
    return "t" if shift == 0 else f"(t {'-' if shift < 0 else '+'} {abs(shift):g})"


def _product(t: np.ndarray, values: np.ndarray) -> Factor | None:
    """Return a formula for values that are divided once more by 1 + c (t - 1) at each step, or constant; else None."""
    later = np.flatnonzero(np.diff(t) == 1) + 1
    if not later.size:
        return None
    slopes = (values[later - 1] / values[later] - 1) / (t[later] - 1)
    slope = float(f"{np.median(slopes):.4g}")
    products = np.cumprod(1 + slope * np.arange(t[-1]))[t - 1]
    number = float(values[0] * products[0])
    expected = number / products
    if abs(slope) <= SAME and (np.abs(values - np.median(values)) <= LESS_ROUGH * np.abs(values)).all():
        return Factor(float(f"{np.median(values):.4g}"))
    if abs(slope) <= SAME or (np.abs(values - expected) > LESS_ROUGH * np.abs(expected)).any():
        return None
    return Factor(_rounded(number), (), (f"Πₛ₌₁ᵗ (1 + {slope:.4g} (s - 1))",))


def _limited(t: np.ndarray, values: np.ndarray, shapes: list[Shape]) -> Factor | None:
    """Return a formula for values that change for some steps and then remain constant, else None."""
    last = float(values[-1])
    changing = np.flatnonzero(np.abs(values - last) > SAME * abs(last))
    count = int(changing[-1]) + 1 if changing.size else 0
    if not LEAST <= count <= len(values) - LEAST_GROWING or last == 0:
        return None
    shapes = [(shape[:count], above, below) for shape, above, below in shapes]
    first = _formula(t[:count], np.abs(values[:count]), shapes)
    rising, falling = (np.abs(values[:count]) < abs(last)).all(), (np.abs(values[:count]) > abs(last)).all()
    if first is None or not (first.above or first.below) or not (rising or falling):
        return None
    return Factor(float(np.sign(last)), (f"{'min' if rising else 'max'}({first}, {abs(last):.5g})",))


def _is_linear(t: np.ndarray, values: np.ndarray) -> bool:
    """Return True if values are a linear function of t, which is not constant."""
    line = values[0] + (values[-1] - values[0]) * (t - t[0]) / (t[-1] - t[0])
    changes = abs(values[-1] - values[0]) > ROUGH * abs(values[0])
    return bool(changes and (np.abs(values - line) <= SAME * np.abs(values)).all())


def _listed(t: np.ndarray, values: np.ndarray) -> str:
    """Return the first values, or all of them if they change at most twice."""
    changes = np.flatnonzero(np.abs(np.diff(values)) > SAME * np.abs(values[1:])) + 1
    if len(changes) > MOST_CHANGES:
        return f"[{', '.join(f'{value:.4g}' for value in values[:SHOWN])}, …]"
    parts = [f"{values[i]:.4g} from t = {t[i - 1] + 1}" for i in changes]
    return f"[{values[0]:.4g}, {', '.join(parts)}]"


def product(factor: Factor, term: str) -> str:
    """Return the text of a factor times a term, such as "0.1 g"."""
    number = f"{factor.number:.5g}"
    if number == "1" and (factor.above or term):
        number = ""
    sign, number = ("-", "") if number == "-1" and (factor.above or term) else ("", number)
    above = " ".join(part for part in (number, *factor.above, term) if part) or "1"
    below = f" / {factor.below[0]}" if len(factor.below) == 1 else f" / ({' '.join(factor.below)})"
    return sign + above + (below if factor.below else "")


def total(parts: Sequence[str]) -> str:
    """Return the text of a sum, with minus signs instead of negative terms."""
    text = ""
    for part in parts:
        sign, size = (" - ", part[1:]) if part.startswith("-") else (" + ", part)
        text = text + sign + size if text else part
    return text


def shapes_of(t: np.ndarray, betas: Iterable[float]) -> Iterator[Shape]:
    """Yield functions of t with their factors above and below the fraction bar, simplest first."""
    corrections = []
    for b, (power, (above, below)), shift in itertools.product([b for b in betas if 0 < b < 1], POWERS.items(), (0, 1)):
        names = {"b": f"{b:g}", "t": "ᵗ⁺¹" if shift else "ᵗ"}
        corrections.append(((1 - b ** (t + shift)) ** power, above.format(**names), below.format(**names)))
    one = (np.ones(len(t)), "", "")
    for first, second in [(one, one), *((c, one) for c in corrections), *itertools.combinations(corrections, 2)]:
        for power, (above, below) in OF_T.items():
            shape = first[0] * second[0] * t**power
            yield (
                shape,
                tuple(filter(None, (first[1], second[1], above))),
                tuple(filter(None, (first[2], second[2], below))),
            )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
