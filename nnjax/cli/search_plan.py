"""`nnjax search --plan`: estimate the number of programs, the memory, the steps and the time of a search."""

import numpy as np
from jax.sharding import Mesh

from nnjax import train
from nnjax.cli.search_program import SearchSetup, make_decisions
from nnjax.cli.search_request import describe_replicates, members_of
from nnjax.train.engine.search.decisions import Scored
from nnjax.train.engine.search.groups import split_space


def plan_search(setup: SearchSetup, mesh: Mesh | None) -> str:
    """Return a table of the estimated cost as text; see `search_arguments` for the arguments.

    The steps are counted in a simulated search with random scores. Time and memory are estimated from one network with
    the largest width and the first value of each list that changes the program.
    """
    settings, request, prepared = setup
    draws = np.random.default_rng(request.config.seed)
    decisions = make_decisions(setup, Scored(lambda trial, rung: float(draws.random()), lambda trial: -1))
    estimate = train.plan(prepared.run, prepared.training, members=members_of(settings), mesh=mesh)
    _, structures = split_space(request.space)
    steps, programs = decisions.trial_steps * settings["seeds"], len(structures)
    times = describe_replicates(settings)
    rows = [
        ("trials", f"{settings['trials']:,}{times}, {decisions.rounds:,} decisions, {steps:,} steps of a network"),
        ("programs", f"{programs:,}" + (", one for each combination of the lists" if programs > 1 else "")),
    ]
    if estimate.seconds:
        strategy = request.config.strategy
        name = strategy if strategy in estimate.seconds else estimate.strategy
        seconds = steps * estimate.seconds[name]
        rows.append(("training", f"about {_duration(seconds)} with strategy {name}, plus compilation and validation"))
    table = str(estimate).splitlines()
    width = len(table[0]) - len(table[0].split(maxsplit=1)[1])
    return "\n".join([*table, *(f"{name:<{width}}{text}" for name, text in rows)])


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
