"""List the methods of `train.search` by name."""

from nnjax.train.engine.search import halving, hyperband, pbt, random, tpe
from nnjax.train.engine.search.schedule import Method

METHODS: dict[str, Method] = {m.METHOD.name: m.METHOD for m in (random, halving, hyperband, pbt, tpe)}
KEEP = {"pbt": 0.8}  # default of keep=; 1/3 for the other methods
