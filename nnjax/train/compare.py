"""Compare the scores of two runs with the same seeds, with confidence intervals for the differences."""

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jax.sharding import Mesh

from nnjax import checks
from nnjax.data import Source
from nnjax.train.engine.ensemble import Strategy
from nnjax.train.engine.options import FitOptions
from nnjax.train.engine.trainable import check_trainable
from nnjax.train.fit import fit
from nnjax.types import Data, Key, Trainable

SKIPPED = ("epoch", "step")  # entries of a record that are not scores


class PairedDifference(NamedTuple):
    """The mean difference between the scores of two runs over several seeds, with its confidence interval."""

    difference: float
    low: float
    high: float
    n: int  # number of seeds


class Comparison(NamedTuple):
    """The scores of two runs, and the mean difference, first - second, of each score that both have."""

    differences: dict[str, PairedDifference]
    first: dict[str, np.ndarray]  # scores by name, each of shape (seeds,)
    second: dict[str, np.ndarray]


def compare(
    first: Trainable,
    second: Trainable,
    data: Data | Source | tuple[Any, ...] | None = None,
    *,
    validation: Data | tuple[Any, ...] | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    seeds: int,
    key: Key | None = None,
    strategy: Strategy | None = None,
    mesh: Mesh | None = None,
    confidence: float = 0.95,
    progress: bool = True,
) -> Comparison:
    """Train two runs from the same keys on the same batches, and compare their scores seed by seed.

    With the same seed, both runs see the data in the same order. If their networks have the same shapes, they also use
    the same random numbers for initialisation and dropout. This shared noise cancels in the difference, which is
    exactly 0 for two equal runs. Losses are compared only if both runs have the same loss function or objective.

    Args:
      first: one of the runs to compare.
      second: the other run; only metrics that have the same name in both runs are compared.
      data: see `fit`.
      validation: data for the scores, which are computed after the last epoch. For runs without data, None compares
        the means of their logs over the last epoch.
      epochs: see `fit`.
      steps: see `fit`.
      seeds: number of pairs of runs, at least 2.
      key: random key, which is split into one key per seed; `jax.random.key(0)` if None.
      strategy: see `fit`.
      mesh: see `fit`.
      confidence: probability that an interval contains the true difference.
      progress: see `fit`.

    Returns:
      `Comparison(differences, first, second)`.

    Raises:
      ValueError: if there are fewer than 2 seeds, if epochs or steps is 0, if data are passed without validation=, if a
        run diverged, or if the runs have no score in common; also as raised by `fit`.
      TypeError: unless exactly one of epochs and steps is passed; also as raised by `fit`.

    >>> digits = data.load("digits")
    >>> make = lambda rate: train.Run(nn.mlp([16], 10), losses.cross_entropy, optim.adam(rate), batch_size=32)
    >>> slow, fast = make(1e-4), make(1e-2)
    >>> comparison = train.compare(slow, fast, digits.train, validation=digits.test, epochs=1, seeds=3)
    >>> comparison.differences["loss"].low > 0  # the loss of the slow run is higher
    True
    """
    if checks.positive_int("compare", "seeds", seeds) < 2:
        raise ValueError("compare: an interval needs at least 2 seeds, got 1; pass for example seeds=10")
    for name, run in (("first", first), ("second", second)):
        check_trainable("compare", name, run)
    checks.in_range("compare", "confidence", confidence, "(0, 1)")
    length = FitOptions(epochs=epochs, steps=steps)
    if (validation is None and data is not None) or not (length.epochs or length.steps):
        raise ValueError(
            "compare: runs are scored on validation data after training; pass validation= and more than 0 epochs or "
            f"steps, got {epochs=}, {steps=} and validation={validation!r:.60}"
        )
    scores = []
    for name, run in (("first", first), ("second", second)):
        result = fit(
            run,
            data,
            epochs=epochs,
            steps=steps,
            key=key,
            members=seeds,
            strategy=strategy,
            mesh=mesh,
            validation=validation,
            validate_every=2**31 - 1,  # validate only after the last epoch
            progress=progress,
        )
        if (result.diverged >= 0).any():
            member = int(np.flatnonzero(result.diverged >= 0)[0])
            raise ValueError(
                f"compare: the {name} run diverged for seed {member} in step {result.diverged[member]}; "
                "without its score the runs cannot be compared"
            )
        prefix = "" if validation is None else "validation_"
        last = {name.removeprefix(prefix): v for name, v in result.history[-1].items() if name.startswith(prefix)}
        scores.append({name: score for name, score in last.items() if np.ndim(score) == 1 and name not in SKIPPED})
    comparable = _is_same(_objective(first), _objective(second))
    common = [name for name in scores[0] if name in scores[1] and (name != "loss" or comparable)]
    if not common:
        raise ValueError(
            f"compare: the runs have no score in common: {', '.join(scores[0])} against {', '.join(scores[1])}, with "
            "different loss functions; pass the same metrics= to both"
        )
    return Comparison(
        {name: paired_difference(scores[0][name], scores[1][name], confidence=confidence) for name in common}, *scores
    )


def paired_difference(first: Array, second: Array, *, confidence: float = 0.95) -> PairedDifference:
    """Return the mean difference between the scores of two runs with the same seeds, and its t interval.

        d ± t(n - 1) · s / √n,   d and s: mean and standard deviation of first_i - second_i

    Args:
      first: scores of one run, (seeds,).
      second: scores of the other run, (seeds,), trained with the same keys and therefore on the same batches.
      confidence: probability that the interval contains the true difference, for normally distributed differences.

    Returns:
      The mean difference and its interval, as Python numbers. Equal scores give exactly 0 in [0, 0].

    Raises:
      ValueError: if a shape is wrong, if there are fewer than 2 seeds, if a score is not finite, or if confidence is
        outside (0, 1).
      TypeError: if the scores are not numbers.

    >>> train.paired_difference(np.array([3.0, 2.0, 4.0]), np.array([1.0, 1.0, 1.0]))
    PairedDifference(difference=2.0, low=-0.48..., high=4.48..., n=3)

    Source: Student 1908.
    """
    from scipy.special import stdtrit

    where = "paired_difference"
    confidence = float(checks.in_range(where, "confidence", confidence, "(0, 1)"))
    try:
        a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{where}: first and second must be arrays of numbers, got {first!r:.60}, {second!r:.60}"
        ) from error
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"{where}: first and second must have one score per seed, (seeds,), got {a.shape}, {b.shape}")
    n = len(a)
    if n < 2:
        raise ValueError(f"{where}: an interval needs at least 2 seeds, got {n}; run more seeds")
    bad = np.flatnonzero(~(np.isfinite(a) & np.isfinite(b)))
    if bad.size:
        raise ValueError(
            f"{where}: scores must be finite, got {a[bad[0]]} and {b[bad[0]]} for seed {bad[0]}; omit it in both"
        )
    mean = float((a - b).mean())
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * (a - b).std(ddof=1) / math.sqrt(n))
    return PairedDifference(mean, mean - half, mean + half, n)


def _objective(run: Any) -> Any:
    """Return the function that a run minimises, or the run itself if it has no attribute `loss` or `objective`."""
    return getattr(run, "loss", None) or getattr(run, "objective", None) or run


def _is_same(first: Any, second: Any) -> bool:
    """Return True if two losses are the same function, or the same function with the same fixed arguments."""
    return bool(_unbound(first) == _unbound(second))


def unbound_function(function: Any) -> Any:
    """Return the function inside partials, which may be nested."""
    return _unbound(function)[0]


def _unbound(function: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the function inside partials, which may be nested, and its fixed arguments."""
    args: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    while isinstance(function, partial):
        args, keywords = (*function.args, *args), {**function.keywords, **keywords}
        function = function.func
    return function, args, keywords
