"""Check that the text of an equation reproduces the recorded arrays, so that no wrong or garbled line is printed."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nnjax.optcheck.reading.terms import Leaf, old_gradient, statistics

EXACT = 1e-6  # largest error of a text, relative to the sizes of its terms
ROUNDED = 1e-4  # the same if it contains a number that is printed with the largest number of digits
DIGITS = 5  # numbers with as many significant digits may be rounded
TOKENS = re.compile(
    r"\s*(‖[^‖]+‖[₁∞]?|(?:rms|mean)\([^()]+\)|\d+(?:\.\d+)?(?:e[+-]?\d+)?|from t =|"
    r"[A-Za-zθḡπ]+(?:_max)?(?:_old)?|ᵗ⁺¹|[ᵗ²³√()\[\],…±+*/-])"
)


class Value(NamedTuple):
    """The value of an expression, and the size of its terms, to which rounding is proportional."""

    value: np.ndarray
    size: np.ndarray


def holds_as_text(text: str, name: str, leaf: Leaf) -> bool:
    """Return True if the right side of an equation, as printed, reproduces an array or the update in every element.

    Args:
      text: the right side, such as "0.9 m + 0.1 g", or "θ - 0.01 m" for the update.
      name: the array; "θ" for the update.
      leaf: the recorded arrays, with the names that the text uses.
    """
    is_update = name not in leaf.after
    y = leaf.updates if is_update else leaf.after[name]
    if is_update and not text.startswith("θ"):
        return False
    try:
        with np.errstate(all="ignore"):
            result = _Reader(text.removeprefix("θ") if is_update else text, _names(leaf, name), leaf.rounding).read()
    except (IndexError, KeyError, ValueError):  # the text is not an expression of recorded arrays
        return False
    rounded = any(len(digits) >= DIGITS for digits in _digits(text))
    rounding = 8 * leaf.rounding if is_update else 0.0
    with np.errstate(all="ignore"):
        value, size = np.broadcast_to(result.value, y.shape), np.broadcast_to(result.size, y.shape)
        near = np.abs(value - y) <= (ROUNDED if rounded else EXACT) * np.maximum(size, np.abs(y)) + rounding
    left_out = (leaf.grads == 0) & (leaf.params == 0) & (y == 0)  # elements that overflow
    missing = np.isnan(value) & ((y == 0) | ~np.isfinite(y))  # 0 / 0, or a step whose coefficient is not listed
    listed = np.isnan(value).all(1, keepdims=True) if "…" in text else False
    return bool((near | left_out | missing | listed | ~np.isfinite(y)).all())


def names_in_text(text: str) -> set[str]:
    """Return the stored arrays and "u" in the right side of an equation."""
    words = re.findall(r"(?<![A-Za-z0-9])(?:[a-zḡ]|v_max)(?:_old)?(?![A-Za-z_])", text)
    return {word.removesuffix("_old") for word in words} - {"g", "t"}


def _names(leaf: Leaf, name: str) -> dict[str, np.ndarray]:
    """Return the arrays by the names that a text uses: in its own equation, an array is the old one."""
    names = {f"{other}_old": values for other, values in leaf.before.items()} | leaf.after
    steps = np.arange(1.0, len(leaf.updates) + 1)[:, None]
    names |= {
        "g": leaf.grads,
        "g_old": old_gradient(leaf),
        "θ": leaf.params,
        "u": leaf.updates,
        "t": steps,
        "π": np.array([[np.pi]]),
    }
    names |= {text: values[:, None] for text, values in statistics(leaf).items()}
    return names | ({name: leaf.before[name]} if name in leaf.before else {})


def _digits(text: str) -> list[str]:
    """Return the significant digits of all numbers in a text."""
    numbers = re.findall(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", text)
    return [number.partition("e")[0].replace(".", "").strip("0") for number in numbers]


class _Reader:
    """A reader of expressions with products of adjacent factors, roots, powers and functions."""

    def __init__(self, text: str, names: dict[str, np.ndarray], rounding: np.ndarray) -> None:
        text = re.sub(r"\|([^|]*)\|", r"abs(\1)", text)
        self.tokens: list[str] = []
        place = 0
        while place < len(text.rstrip()):
            token = TOKENS.match(text, place)
            if token is None:
                raise ValueError(text)
            self.tokens.append(token[1])
            place = token.end()
        self.tokens.append("")  # the end
        self.names, self.place, self.steps, self.rounding = names, 0, names["t"], rounding

    def read(self) -> Value:
        """Return the value of the whole text."""
        result = self._sum()
        if self._next() != "":
            raise ValueError(self._next())
        return result

    def _next(self) -> str:
        return self.tokens[self.place]

    def _take(self, expected: str | None = None) -> str:
        token = self.tokens[self.place]
        if expected not in (None, token):
            raise ValueError(token)
        self.place += 1
        return token

    def _sum(self) -> Value:
        value, size = np.zeros(1), np.zeros(1)
        sign = self._take() if self._next() in ("-", "+") else "+"
        while True:
            part = self._product()
            value, size = (value - part.value if sign == "-" else value + part.value), size + part.size
            if self._next() not in ("+", "-"):
                return Value(value, size)
            sign = self._take()

    def _product(self) -> Value:
        value, size = self._power()
        while self._next() not in ("", "+", "-", ")", ",", "]", "from t ="):
            divides = self._next() == "/"
            if divides:
                self._take()
            other = self._power()
            if divides:
                value, size = value / other.value, size * other.size / other.value**2
            else:
                value, size = value * other.value, size * other.size
        return Value(value, size)

    def _power(self) -> Value:
        if self._next() == "√":
            self._take()
            value, size = self._power()
            root = np.sqrt(value)
            return Value(root, np.where(root > 0, size / root, np.sqrt(size)))
        value, size = self._atom()
        while self._next() in ("²", "³", "ᵗ", "ᵗ⁺¹"):
            power = {"²": 2.0, "³": 3.0, "ᵗ": self.steps, "ᵗ⁺¹": self.steps + 1}[self._take()]
            value, size = value**power, size**power
        return Value(value, size)

    def _atom(self) -> Value:
        token = self._take()
        if token == "(":
            result = self._sum()
            self._take(")")
            return result
        if token == "[":
            return self._list()
        if token[0].isdigit():
            number = np.array([[float(token)]])
            return Value(number, number)
        if self._next() == "(" and token in FUNCTIONS:
            return self._function(token)
        values = self.names[token]
        return Value(values, np.abs(values) + (8 / EXACT * self.rounding if token == "u" else 0.0))

    def _function(self, name: str) -> Value:
        self._take("(")
        arguments = [self._sum()]
        while self._next() == ",":
            self._take()
            if self._next() == "±":
                self._take()
            arguments.append(self._sum())
        self._take(")")
        value = FUNCTIONS[name](*(argument.value for argument in arguments))
        if name in ("sign", "clip", "tanh", "cos"):
            return Value(value, np.abs(value))
        return Value(value, np.max(np.broadcast_arrays(*(argument.size for argument in arguments)), axis=0))

    def _list(self) -> Value:
        """Return a coefficient with one value per step, or with values from some steps on; NaN after an ellipsis."""
        values = np.full(self.steps.shape, np.nan)
        step = 1
        while self._next() != "]":
            if self._next() == "…":
                self._take()
                continue
            number = float(self._take())
            if self._next() == "from t =":
                self._take()
                step = int(self._take())
                values[step - 1 :] = number
            elif "…" in self.tokens:
                values[step - 1] = number
            else:
                values[:] = number
            step += 1
            if self._next() == ",":
                self._take()
        self._take("]")
        return Value(values, np.abs(values))


FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "abs": np.abs,
    "sign": np.sign,
    "clip": lambda x, bound: np.clip(x, -bound, bound),
    "tanh": np.tanh,
    "cos": np.cos,
    "max": np.maximum,
    "min": np.minimum,
}
