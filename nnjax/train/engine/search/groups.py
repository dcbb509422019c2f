"""Group trials by structure, one program per group, and divide the trials among the groups by successive halving."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from nnjax import checks
from nnjax.train.engine.settings import named_missing_setting
from nnjax.train.space import Dimension
from nnjax.types import Trainable

GROUP_KEEP = {"random": 1.0, "pbt": 1 / 3}  # share of groups kept after a round, if it differs from `keep`


@dataclass(frozen=True)
class WithStructure:
    """Wrap `make_run` with fixed values for the structures, as a function of only the traced numbers.

    The wrapper is hashable, so a second search with the same structure compiles nothing.
    """

    make_run: Callable[[dict[str, Any]], Trainable]
    fixed: tuple[tuple[str, Any], ...]

    def __call__(self, hyper: Mapping[str, Any]) -> Trainable:
        """Return the run for the given traced numbers."""
        return self.make_run({**hyper, **dict(self.fixed)})


def split_space(space: Mapping[str, Dimension]) -> tuple[dict[str, Dimension], list[tuple[tuple[str, Any], ...]]]:
    """Return the dimensions with traced numbers, and every combination of values of the other dimensions."""
    traced = {name: d for name, d in space.items() if d.kind != "structure"}
    fixed = [[(name, value) for value in d.values] for name, d in space.items() if d.kind == "structure"]
    return traced, list(itertools.product(*fixed))


def group_rounds(groups: int, trials: int, keep: float) -> list[list[int]]:
    """Return the number of trials for each remaining group, best group first, in each round.

    Every round gets the same share of the trials. In round r, the best max(1, ⌊groups · keepʳ⌋) groups remain.

    Raises:
      ValueError: if a group would get no trial.

    >>> from nnjax.train.engine.search.groups import group_rounds
    >>> group_rounds(1, 512, 1 / 3), group_rounds(3, 512, 1 / 3), group_rounds(4, 100, 0.5)
    ([[512]], [[86, 85, 85], [256]], [[9, 9, 8, 8], [17, 16], [33]])
    """
    count = 1 if keep == 1 or groups == 1 else 1 + math.ceil(math.log(groups) / -math.log(keep) - 1e-9)
    rounds = []
    for i, budget in enumerate(_shares(trials, count)):
        remaining = max(1, math.floor(groups * keep**i + 1e-9))
        if budget < remaining:
            raise ValueError(
                f"search: {trials} trials are too few for {groups} structures in {count} rounds; pass trials ≥ "
                f"{groups * count}"
            )
        rounds.append(_shares(budget, remaining))
    return rounds


def check_structure(make_run: Any, setting: dict[str, Any]) -> None:
    """Build the run of a setting once from concrete numbers, because tracers cannot be checked.

    Notes on an error name the setting, and say how `make_run` gets the values of the space.
    """
    numbers = {name: jax.numpy.asarray(v) if isinstance(v, (int, float)) else v for name, v in setting.items()}
    names = [*setting, *(name for name, _ in getattr(make_run, "fixed", ()))]
    with checks.located("in a setting of search: " + ", ".join(f"{name}={value}" for name, value in setting.items())):
        try:
            with named_missing_setting(names, "the space"):
                make_run(numbers)
        except TypeError as error:
            if setting:
                error.add_note(
                    f"make_run gets {', '.join(setting)} as JAX arrays; if it needs Python values, as for depths, "
                    "batch sizes and names, put them in train.structure([…]); padded widths are nn.mlp(…, widths=…)"
                )
            raise


def _shares(total: int, parts: int) -> list[int]:
    """Divide a total into integer shares, the larger ones first."""
    return [total // parts + (i < total % parts) for i in range(parts)]
