"""Two runs over the same seeds: whether one is better, and how sure that is."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from nnjax import checks
from nnjax.data.source import Source
from nnjax.train.engine.ensemble import Strategy
from nnjax.train.fit import fit
from nnjax.train.run import Run
from nnjax.types import Data, Key
from nnjax.uncertainty import Paired, paired


class Comparison(NamedTuple):
    """What `compare` returns: for each score of both runs the mean difference, first - second, with its interval."""

    differences: dict[str, Paired]
    first: dict[str, np.ndarray]  # (seeds,) the scores of each seed
    second: dict[str, np.ndarray]


def compare(
    first: Run,
    second: Run,
    data: Data | Source | tuple[Any, ...],
    *,
    validation: Data | tuple[Any, ...],
    epochs: float,
    seeds: int,
    key: Key | None = None,
    strategy: Strategy = "map",
    mesh: Mesh | None = None,
    confidence: float = 0.95,
    progress: bool = True,
) -> Comparison:
    """Train two runs from the same keys on the same batches, and compare their scores seed by seed.

    Seed i of both has the same initial draws, order of data and dropout masks where their networks agree in shape, so
    that what the seeds share cancels in the difference. A run against itself is exactly 0.

    Args:
      first: a run.
      second: another, with the same names of metrics.
      data: as for `fit`.
      validation: by which both are scored, after the last epoch.
      epochs: as for `fit`.
      seeds: pairs of runs, at least 2.
      key: of which each seed's is split; `jax.random.key(0)` if None.
      strategy: as for `fit`.
      mesh: as for `fit`.
      confidence: that an interval holds the true difference.
      progress: as for `fit`.

    Raises:
      ValueError: for fewer than 2 seeds, no epochs, no validation, where a run diverged, or where the runs have no
        score in common. Losses are compared where both runs have the same one.

    >>> digits = data.load("digits")
    >>> slow, fast = (train.Run(nn.mlp([16], 10), losses.cross_entropy, optim.adam(r), 32) for r in (1e-4, 1e-2))
    >>> found = train.compare(slow, fast, digits.train, validation=digits.test, epochs=1, seeds=3)
    >>> found.differences["loss"].low > 0  # the slow one's is higher
    True
    """
    if checks.positive_int("compare", "seeds", seeds) < 2:
        raise ValueError("compare: an interval needs at least 2 seeds, got 1")
    if validation is None or epochs <= 0:
        raise ValueError(f"compare: runs are scored on validation after epochs > 0, got epochs={epochs}, {validation=}")
    scores = []
    for name, run in (("first", first), ("second", second)):
        result = fit(
            run,
            data,
            epochs=epochs,
            key=key,
            members=seeds,
            strategy=strategy,
            mesh=mesh,
            validation=validation,
            validate_every=max(1, int(np.ceil(epochs))),
            progress=progress,
        )
        if (result.diverged >= 0).any():
            member = int(np.flatnonzero(result.diverged >= 0)[0])
            raise ValueError(
                f"compare: the {name} run diverged for seed {member} in step {result.diverged[member]}; "
                "without its score there is nothing to compare"
            )
        last = {k.removeprefix("validation_"): v for k, v in result.history[-1].items() if k.startswith("validation_")}
        scores.append(last)
    common = [name for name in scores[0] if name in scores[1] and (name != "loss" or _same(first.loss, second.loss))]
    if not common:
        raise ValueError(
            f"compare: the runs have no score in common: {', '.join(scores[0])} against {', '.join(scores[1])}, of "
            "losses that differ; give both the same metrics="
        )
    return Comparison(
        {name: paired(scores[0][name], scores[1][name], confidence=confidence) for name in common}, *scores
    )


def _same(one: Any, other: Any) -> bool:
    """Whether two losses are the same function, or the same with the same arguments fixed."""
    if isinstance(one, partial) and isinstance(other, partial):
        return (one.func, one.args, one.keywords) == (other.func, other.args, other.keywords)
    return bool(one == other)
