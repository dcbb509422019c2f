"""Select parameters by path patterns, for masks, labels, freezing and transfer."""

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

import jax
from jax import Array

from nnjax import checks
from nnjax.types import PyTree

T = TypeVar("T")


def paths(tree: PyTree) -> dict[str, Array]:
    """Return a dictionary that maps the path of each leaf to the leaf, in the order of `jax.tree.leaves`.

    Args:
      tree: Parameters, or any pytree.

    >>> net = nn.named(body=nn.serial(nn.dense(3), jax.nn.relu), head=nn.dense(2))
    >>> params, _ = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> list(nn.paths(params))
    ['body/0/b', 'body/0/w', 'head/b', 'head/w']
    """
    return {checks.path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def mask(tree: PyTree, pattern: str | list[str] | tuple[str, ...]) -> PyTree:
    """Mark the leaves whose path matches a pattern, for `optax.masked`, `adamw(mask=…)` or freezing.

    Args:
      tree: Parameters, or any pytree.
      pattern: A path in which `*` matches any text without "/", `?` one character, and `**` any number of parts; or
        a list or tuple of patterns. A leaf is marked if its path matches any of them.

    Returns:
      A pytree of booleans with the same structure, True for the leaves that match.

    Raises:
      TypeError: if a pattern is not a string.
      ValueError: if a pattern matches nothing; the message shows the closest paths.

    >>> params, _ = nn.mlp([3], 2).init(jax.random.key(0), jnp.ones((1, 4)))
    >>> nn.mask(params, "**/w")[1]
    {'b': False, 'w': True}
    """
    patterns = list(pattern) if isinstance(pattern, (list, tuple)) else [pattern]
    _check_patterns("mask", tree, patterns)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(_matches(text, checks.path_name(path)) for text in patterns), tree
    )


def labels(tree: PyTree, rules: Mapping[str, T]) -> PyTree:
    """Give each leaf the label of the first pattern that matches its path, for `optax.partition`.

    Args:
      tree: Parameters, or any pytree.
      rules: Patterns, as in `mask`, mapped to their labels. The first match counts, so put `"**"` last.

    Returns:
      A pytree of labels with the same structure.

    Raises:
      TypeError: if a pattern is not a string.
      ValueError: if a pattern matches nothing (the message shows the closest paths), or if a leaf matches no pattern.

    >>> params, _ = nn.named(body=nn.dense(3), head=nn.dense(2)).init(jax.random.key(0), jnp.ones((1, 4)))
    >>> nn.labels(params, {"head/**": "fast", "**": "slow"})
    {'body': {'b': 'slow', 'w': 'slow'}, 'head': {'b': 'fast', 'w': 'fast'}}
    """
    _check_patterns("labels", tree, rules)

    def label(path: tuple[object, ...], leaf: Array) -> T:
        text = checks.path_name(path)
        for pattern, value in rules.items():
            if _matches(pattern, text):
                return value
        raise ValueError(f"labels: no pattern matches {text!r}; add '**' with a label for the rest")

    return jax.tree_util.tree_map_with_path(label, tree)


def _check_patterns(where: str, tree: PyTree, patterns: Iterable[str]) -> None:
    known = list(paths(tree))
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{where}: a pattern must be text such as 'head/**', got {pattern!r}")
        if not any(_matches(pattern, path) for path in known):
            near = difflib.get_close_matches(pattern, known, n=5, cutoff=0.0)
            hint = f"the nearest are {', '.join(near)}" if near else "the tree has no leaves"
            raise ValueError(f"{where}: {pattern!r} matches none of the {len(known)} paths; {hint}")


def _matches(pattern: str, path: str) -> bool:
    return _parts_match(pattern.split("/"), path.split("/"))


def _parts_match(pattern: list[str], parts: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_parts_match(pattern[1:], parts[skip:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _parts_match(pattern[1:], parts[1:])
