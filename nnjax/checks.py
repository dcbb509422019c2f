"""Check the arguments of functions in all parts of nnjax.

Error messages start with `where`, the function that the user called. They state the value that it got, the value that
it expected, and how to fix the call.
"""

import difflib
import inspect
import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Issue a warning that points to the innermost call from outside nnjax."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("nnjax."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def located(place: str) -> Iterator[None]:
    """Add a note with the place in the network to every error raised in this context, including JAX's errors."""
    try:
        yield
    except Exception as error:
        error.add_note(place)
        raise


@contextmanager
def shapes_only() -> Iterator[None]:
    """Add a note to errors of an `init` that computes with its input, which has a shape and dtype but no values."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        note = "init gets shapes and dtypes, not values; jax.eval_shape(f, x) returns the shapes and dtypes of f(x)"
        if "ShapeDtypeStruct" in str(error) and note not in getattr(error, "__notes__", []):
            error.add_note(note)
        raise


def is_traced(value: Any) -> bool:
    """Return True if JAX is tracing the value; then only its shape and dtype are known and can be checked."""
    return isinstance(value, jax.core.Tracer)


def describe(value: Any) -> str:
    """Describe a value for messages: an array by its shape, a tuple by its length, anything else by its type."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array {tuple(value.shape)}"
    if type(value) is tuple:
        return f"a tuple of {len(value)}"
    return type(value).__name__


def shapes(x: Any) -> str:
    """Return the shapes of the leaves of a pytree as text for an error message."""
    texts = [str(jnp.shape(leaf)) for leaf in jax.tree.leaves(x)]
    return texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"


def array(where: str, name: str, value: Any) -> jax.Array:
    """Convert an array or nested lists of numbers to a JAX array.

    Raises:
      TypeError: if the value is not numeric, or is a masked array, whose mask would be lost.
      ValueError: if a NumPy array has integers that do not fit into JAX's integer dtype.
    """
    if isinstance(value, jax.Array):
        return value
    not_masked(where, name, value)
    try:
        converted = jnp.asarray(None if isinstance(value, str) else value)  # raises for None; strings might only warn
    except (TypeError, ValueError, OverflowError) as error:
        text = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"{value!r:.60}"
        raise TypeError(f"{where}: {name} must be an array of numbers that JAX supports, got {text}") from error
    narrow = isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.dtype != converted.dtype
    if narrow and (np.asarray(converted) != value).any():
        raise ValueError(f"{where}: {name} has integers that do not fit into {converted.dtype}; pass floats")
    return converted


def real_arrays(where: str, arrays: Mapping[str, Any], *, wide: bool = False) -> list[jax.Array]:
    """Convert arrays of real numbers to a common floating dtype.

    This is their promoted dtype, except that 8-bit floats, and 16-bit floats with integers of 16 bits or more, become
    float32. If no array is floating, it is JAX's default float dtype.

    Args:
      where: the function that the user called.
      arrays: the arguments by name.
      wide: True to use float32 or a wider dtype.

    Raises:
      TypeError: if an array is complex, masked or not numeric.
      ValueError: if a NumPy array has integers that do not fit into JAX's integer dtype.
    """
    checked = {name: array(where, name, value) for name, value in arrays.items()}
    dtypes = [jnp.dtype(jnp.float32)] if wide else []
    for name, a in checked.items():
        if jnp.issubdtype(a.dtype, jnp.complexfloating):
            raise TypeError(
                f"{where}: {name} must be real, got {a.dtype}; pass jnp.stack([z.real, z.imag], -1) or abs(z)"
            )
        if not (jnp.issubdtype(a.dtype, jnp.number) or a.dtype == bool):
            raise TypeError(f"{where}: {name} must be an array of real numbers, got {a.dtype}")
        if jnp.issubdtype(a.dtype, jnp.floating):
            dtypes.append(a.dtype if a.dtype.itemsize > 1 else jnp.dtype(jnp.float32))
    if not any(jnp.issubdtype(a.dtype, jnp.floating) for a in checked.values()):
        dtypes.append(jnp.dtype(jnp.result_type(float)))
    elif any(jnp.issubdtype(a.dtype, jnp.integer) and a.dtype.itemsize > 1 for a in checked.values()):
        dtypes.append(jnp.dtype(jnp.float32))
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*dtypes)
    return [a.astype(dtype) for a in checked.values()]


def positive_int(where: str, name: str, value: Any, low: int = 1, *, bits: int = 31) -> int:
    """Return `value` as an int; raise unless it is an integer ≥ `low` and < 2^bits."""
    if is_traced(value):
        raise TypeError(f"{where}: {name} must be known before JAX traces; name it in static_argnames of jax.jit")
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{where}: {name} must be an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{where}: {name} must be ≥ {low}, got {value}")
    if value >= 2**bits:
        raise ValueError(f"{where}: {name} must be < 2^{bits}, got {value}")
    return int(value)


def function_of(where: str, name: str, value: Any, *arguments: str, by_name: Sequence[str] = ()) -> None:
    """Raise TypeError unless `value` is a function that accepts `arguments` by position and `by_name` as keywords."""
    call = f"({', '.join([*arguments, *(['*'] if by_name else []), *by_name])})"
    if not callable(value) or isinstance(value, tuple):  # JAX may crash if it calls a Layer, which is a tuple
        raise TypeError(f"{where}: {name} must be a function {call}, got {value!r:.80}")
    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError):  # some built-in functions have no signature
        return
    try:
        signature.bind(*arguments, **dict.fromkeys(by_name))
    except TypeError:
        function = getattr(value, "__name__", repr(value))
        takes = [str(part.replace(annotation=part.empty)) for part in signature.parameters.values()]
        raise TypeError(
            f"{where}: {name} must be a function {call}, but {function} takes ({', '.join(takes)})"
        ) from None


def arrays(where: str, name: str, tree: Any) -> None:
    """Raise TypeError unless all leaves of a pytree are arrays or numbers."""
    for leaf in jax.tree.leaves(tree):
        dtype = getattr(leaf, "dtype", None)
        text = isinstance(dtype, np.dtype) and dtype.kind in "OUSM"
        if text or not (isinstance(leaf, (int, float, complex)) or dtype is not None):
            raise TypeError(f"{where}: {name} must be arrays, or pytrees of them, got {leaf!r:.80}")


def instance(where: str, name: str, value: Any, kind: type[T], hint: str) -> T:
    """Return `value`; raise TypeError unless it has the type `kind`. The hint describes a valid value."""
    if not isinstance(value, kind):
        raise TypeError(f"{where}: {name} must be {hint}, got {value!r:.80}")
    return value


def mapping(where: str, name: str, value: Any) -> Mapping[str, Any]:
    """Return `value`; raise TypeError unless it is a non-empty dictionary whose keys are strings."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
        raise TypeError(
            f"{where}: {name} must be a dictionary with at least one name and its values, got {value!r:.80}"
        )
    return value


def in_range(where: str, name: str, value: Any, interval: str) -> Any:
    """Return a scalar hyper-parameter; raise ValueError unless it is one number in an interval such as "[0, 1)".

    The values of traced arrays are unknown and not checked. JAX arrays are returned unchanged. All other numbers become
    Python floats, because a `np.float64` would promote float32 parameters.
    """
    if not _is_real_scalar(value):
        several = isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) > 0
        fix = "; use jax.vmap for several values" if several else ""
        raise ValueError(f"{where}: {name} must be one number, got {value!r}{fix}")
    if is_traced(value):
        return value
    low, high = (float(end) for end in interval[1:-1].split(","))
    number = float(value)
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    if math.isnan(number) or not (above and below):
        raise ValueError(f"{where}: {name} must be in {interval}, got {number:g}")
    return value if isinstance(value, jax.Array) else number


def _is_real_scalar(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    number = jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)
    return number and np.ndim(value) == 0


def flag(where: str, name: str, value: Any) -> bool:
    """Return `value` as a bool; raise TypeError unless it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{where}: {name} must be True or False, got {value!r}")
    return bool(value)


def function(where: str, name: str, value: T, example: str) -> T:
    """Return `value`; raise TypeError unless it is a function. The message shows `example`."""
    if not callable(value) or isinstance(value, tuple):  # a Layer is callable, but it is a tuple
        raise TypeError(f"{where}: {name} must be a function such as {example}, got {value!r:.60}")
    return value


def items(where: str, name: str, value: Any, example: str) -> tuple[Any, ...]:
    """Return the items of a sequence as a tuple; raise TypeError for other values. The message shows `example`."""
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"{where}: {name} must be a sequence such as {example}, got {value!r}")
    return tuple(value)


def floating_dtype(where: str, name: str, value: Any) -> np.dtype:
    """Return `value` as a dtype; raise TypeError unless it is a floating dtype."""
    try:
        dtype = None if value is None else jnp.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        text = f"{value!r}" if dtype is None else dtype.name
        raise TypeError(f"{where}: {name} must be a floating dtype such as jnp.float32, got {text}")
    return dtype


def leaves(where: str, name: str, tree: Any, expected: Mapping[str, tuple[int | None, ...]]) -> None:
    """Raise ValueError if a layer's parameters or state have wrong entries or shapes, as from another network.

    In an expected shape, None matches an axis of any length.
    """
    if not isinstance(tree, Mapping) or {entry for entry in tree if tree[entry] is not None} != set(expected):
        got = f"a dict of {', '.join(map(str, tree)) or 'nothing'}" if isinstance(tree, Mapping) else f"{tree!r:.60}"
        raise ValueError(f"{where}: {name} must be a dict of {', '.join(expected)}, as returned by init, got {got}")
    for entry, shape in expected.items():
        actual = jnp.shape(tree[entry])
        if len(actual) != len(shape) or any(n not in (None, m) for n, m in zip(shape, actual, strict=True)):
            text = ", ".join("inputs" if size is None else str(size) for size in shape)
            fix = f"pass the {name} that init of this network returned"
            if len(actual) == len(shape) + 1:
                fix = "a leading axis belongs to several networks; use jax.vmap(run.predict, (0, 0, None))"
            raise ValueError(f"{where}: {name}[{entry!r}] must have the shape ({text}), got {actual}; {fix}")


def same_structure(where: str, name: str, tree: Any, like: Any) -> None:
    """Raise ValueError unless a tree has the same structure as the initial tree."""
    difference = structure_difference(tree, like)
    if difference:
        raise ValueError(f"{where}: {name} must have the same structure as the initial ones; {difference}")


def structure_difference(tree: Any, like: Any) -> str:
    """Describe how a tree's structure differs from the expected one, by leaf paths if possible; "" means equal."""
    expected, got = str(jax.tree.structure(like)), str(jax.tree.structure(tree))
    if expected == got:
        return ""
    paths = [[path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(t)] for t in (like, tree)]
    differences = {
        "missing": sorted(set(paths[0]) - set(paths[1])),
        "unexpected": sorted(set(paths[1]) - set(paths[0])),
    }
    parts = [
        f"{kind}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for kind, names in differences.items()
        if names
    ]
    return "; ".join(parts) or f"expected {expected}, got {got}"


def leaf_difference(tree: Any, like: Any) -> str:
    """Describe the first leaf whose shape or dtype differs from that of an equal tree; "" means no difference."""
    for (path, leaf), expected in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(like), strict=True):
        types = [f"{jnp.shape(a)} {a.dtype if hasattr(a, 'dtype') else jnp.result_type(a)}" for a in (expected, leaf)]
        if types[0] != types[1]:
            return f"{path_name(path)} changes from {types[0]} to {types[1]}"
    return ""


def one_of(where: str, name: str, value: str, known: Iterable[str]) -> str:
    """Return `value`; raise ValueError unless it is a known name. The message lists the names, most similar first."""
    names = list(known)
    if isinstance(value, str) and value in names:
        return value
    near = difflib.get_close_matches(str(value), names, n=len(names), cutoff=0.4)
    ordered = near + sorted(set(names) - set(near))
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"{where}: unknown {name} {value!r}{hint}; known names are {', '.join(ordered)}")


def is_key(value: Any) -> bool:
    """Return True if `value` is an array of random keys, typed (`jax.random.key`) or legacy (pairs of uint32)."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or not hasattr(value, "shape"):
        return False
    return bool(jnp.issubdtype(dtype, jax.dtypes.prng_key)) or (dtype == jnp.uint32 and value.shape[-1:] == (2,))


def key(where: str, value: Any, x: Any = None) -> Any:
    """Return a random key as a typed key, converting a legacy uint32 key if necessary.

    Args:
      where: the function that the user called.
      value: the argument that must be a key.
      x: the argument after the key, to detect whether the two are swapped.

    Raises:
      TypeError: if the value is not a random key.
      ValueError: if it is an array of several keys.
    """
    if not is_key(value):
        if is_key(x) and hasattr(value, "shape"):
            raise TypeError(f"{where}: key and x are swapped: the call is init(key, x)")
        if isinstance(value, (int, np.integer)):
            raise TypeError(f"{where}: key must be a random key, got the integer {value}; use jax.random.key({value})")
        raise TypeError(f"{where}: key must be a random key such as jax.random.key(0), got {type(value).__name__}")
    if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.wrap_key_data(value)
    if value.shape != ():
        raise ValueError(f"{where}: expected one key, got keys of shape {value.shape}; use jax.vmap for several keys")
    return value


def numbers(where: str, x: Any, axes: str = "(batch, ...)") -> None:
    """Raise TypeError unless `x` is an array with a dtype that JAX supports."""
    not_masked(where, "x", x)
    dtype = getattr(x, "dtype", None)
    foreign = isinstance(x, np.ndarray) and not _is_jax_dtype(x.dtype)
    if (
        dtype is None
        or not hasattr(x, "shape")
        or foreign
        or getattr(dtype, "kind", "") in ("O", "U", "S", "T", "M", "m")
    ):
        got = type(x).__name__ if dtype is None else f"{type(x).__name__} of {dtype}"
        numeric = foreign and x.dtype.kind in "fciu"
        fix = "cast it, as in x.astype(np.float32)" if numeric else "use jnp.asarray for lists of numbers"
        raise TypeError(f"{where}: x must be an array {axes}, got {got}; {fix}")


def not_masked(where: str, name: str, value: Any) -> None:
    """Raise TypeError for a NumPy masked array, which JAX would reject or convert without its mask."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{where}: {name} is a masked array, whose mask would be lost; use {name}.filled(…) or drop rows"
        )


def _is_jax_dtype(dtype: np.dtype[Any]) -> bool:
    """Return True if JAX supports the dtype: real numbers up to 64 bits, complex up to 128, in native byte order."""
    numeric = dtype.kind == "b" or jnp.issubdtype(dtype, np.number)
    return bool(numeric) and dtype.isnative and dtype.itemsize <= (16 if dtype.kind == "c" else 8)


def batched(where: str, x: Any, axes: str = "(batch, features)", ndim: int = 2) -> None:
    """Raise unless `x` is a floating array with at least `ndim` axes and, for `ndim` > 1, at least one feature.

    Args:
      where: the function that the user called.
      x: the input of a layer.
      axes: the expected axes, for the error message. The first one is the batch.
      ndim: minimum number of axes, including the batch axis.
    """
    numbers(where, x, axes)
    if len(x.shape) < ndim:
        fix = "; use x[:, None] for one feature per example, or x[None] for one example"
        fix = "; use x[None]" if ndim < 2 else fix if ndim == 2 else "; use x[..., None] for one channel"
        hint = fix if len(x.shape) == ndim - 1 else ""
        raise ValueError(f"{where}: x must be {axes}, got {tuple(x.shape)}{hint}")
    if ndim > 1 and x.shape[-1] == 0:
        raise ValueError(f"{where}: x has 0 features; its shape is {tuple(x.shape)}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{where}: x must be floating-point, got {x.dtype}; cast it, as in x.astype(jnp.float32)")


def sequences(where: str, x: Any, axes: str = "(batch, length, features)") -> None:
    """Raise unless `x` is a floating array with exactly three axes."""
    batched(where, x, axes, 3)
    if len(x.shape) != 3:
        raise ValueError(f"{where}: x must be {axes}, got {tuple(x.shape)}")


def features(where: str, x: Any, expected: int) -> None:
    """Raise ValueError unless the last axis of `x` has the size that the parameters require."""
    if x.shape[-1] != expected:
        raise ValueError(f"{where}: expected {expected} features, got {x.shape[-1]} (x is {tuple(x.shape)})")


def path_name(path: tuple[Any, ...]) -> str:
    """Return the path of a leaf as a string such as `0/w`."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(the tree itself)"
