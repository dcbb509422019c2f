"""Convert the settings of a search to arguments of `train.search`, and repeat the decisions of a search."""

import itertools
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh

from nnjax import train
from nnjax.cli.config import Config
from nnjax.cli.prepare import Prepared
from nnjax.cli.search_request import Request
from nnjax.cli.sweep import make_swept_run
from nnjax.train.engine.search.decisions import Decisions, Scored, decide
from nnjax.train.engine.search.draws import key_words
from nnjax.train.engine.search.groups import GROUP_KEEP, group_rounds, split_space
from nnjax.train.engine.search.methods import KEEP


def search_arguments(
    config: Config, request: Request, prepared: Prepared, own: Mapping[str, Any], mesh: Mesh | None
) -> dict[str, Any]:
    """Return the arguments that `train.search` and `train.replay_trial` share.

    Args:
      config: the settings that are not searched, with the strategy.
      request: the space and the rungs.
      prepared: the data.
      own: the settings of the search itself; see `search_request.OWN`.
      mesh: the devices among which the trials are split.
    """
    return {
        "make_run": partial(make_swept_run, config, prepared),
        "space": request.space,
        "data": prepared.training,
        "validation": prepared.held_out,
        "trials": own["trials"],
        "population": own["population"],
        "rungs": request.rungs,
        "keep": own["keep_share"],
        "method": own["method"],
        "score": "nll" if "label_smoothing" in request.space else "loss",
        "key": jax.random.key(config.seed),
        "seeds": own["seeds"],
        "strategy": config.strategy,
        "mesh": mesh,
    }


def check_program(config: Config, request: Request, prepared: Prepared, own: Mapping[str, Any]) -> None:
    """Check the rungs and the number of trials before a folder is created; see `search_arguments` for the arguments.

    Raises:
      ValueError: if two rungs are less than one step apart, or if the lists have more combinations than the trials
        allow.
    """
    _, structures = split_space(request.space)
    for fixed in structures:
        steps = _rung_steps(config, request, prepared, fixed)
        if any(a >= b for a, b in itertools.pairwise((0, *steps))):
            raise ValueError(
                f"--rungs {own['rungs']}: rungs must be at least a step apart, but end after "
                f"{', '.join(map(str, steps))} steps; an epoch has {len(prepared.training.x):,} rows"
            )
    keep = GROUP_KEEP.get(own["method"], _keep(own))
    least = next(n for n in itertools.count(1) if _enough(len(structures), n, keep))
    if own["trials"] < least:
        raise ValueError(
            f"--trials {own['trials']} are too few for the {len(structures)} combinations of the lists; "
            f"pass at least {least}"
        )


def make_decisions(
    config: Config, request: Request, prepared: Prepared, own: Mapping[str, Any], scored: Scored
) -> Decisions:
    """Return the decisions of a search with the given scores; see `search_arguments` for the other arguments."""
    return decide(
        request.space,
        partial(_rung_steps, config, request, prepared),
        scored,
        trials=own["trials"],
        population=own["population"],
        epochs=request.rungs,
        keep=_keep(own),
        method=own["method"],
        key=key_words(jax.random.key(config.seed)),
    )


def _rung_steps(config: Config, request: Request, prepared: Prepared, fixed: tuple[tuple[str, Any], ...]) -> list[int]:
    """Return the number of steps after which a trial reaches each rung."""
    batch_size = dict(fixed).get("batch_size", config.batch_size)
    return [train.epoch_ends(epochs, len(prepared.training.x), batch_size)[-1] for epochs in request.rungs]


def _keep(own: Mapping[str, Any]) -> float:
    share = own["keep_share"]
    return KEEP.get(own["method"], 1 / 3) if share is None else float(share)


def _enough(structures: int, trials: int, keep: float) -> bool:
    """Return True if there are enough trials for all combinations of the lists (structures) in all rounds."""
    try:
        group_rounds(structures, trials, keep)
    except ValueError:
        return False
    return True
