"""The arguments of `train.search` for the settings of a search, also to repeat its decisions or one of its trials."""

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
from nnjax.train.engine.search.methods import KEEP


def search_arguments(
    config: Config, request: Request, prepared: Prepared, own: Mapping[str, Any], mesh: Mesh | None
) -> dict[str, Any]:
    """Return the arguments that `train.search` and `train.replay_trial` share.

    Args:
      config: the settings that are not searched, with the strategy.
      request: the space and the rungs.
      prepared: the data.
      own: the settings of the search itself, see `search_request.OWN`.
      mesh: the devices over which trials are spread.
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


def make_decisions(
    config: Config, request: Request, prepared: Prepared, own: Mapping[str, Any], scored: Scored
) -> Decisions:
    """Return the decisions of the search for the scores of its trials; see `search_arguments` for the arguments."""
    n = len(prepared.training.x)

    def ends(fixed: tuple[tuple[str, Any], ...]) -> list[int]:
        batch_size = dict(fixed).get("batch_size", config.batch_size)
        return [train.epoch_ends(epochs, n, batch_size)[-1] for epochs in request.rungs]

    return decide(
        request.space,
        ends,
        scored,
        trials=own["trials"],
        population=own["population"],
        epochs=request.rungs,
        keep=KEEP.get(own["method"], 1 / 3) if own["keep_share"] is None else own["keep_share"],
        method=own["method"],
        key=key_words(jax.random.key(config.seed)),
    )
