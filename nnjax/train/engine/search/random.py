"""Draw all settings uniformly, and train every trial to the last rung (random search).

Source: Bergstra and Bengio 2012.
"""

import numpy as np

from nnjax.train.engine.search.schedule import Ledger, Method, Schedule, random_units


def propose(schedule: Schedule, ledger: Ledger, trial: int) -> np.ndarray:
    """Draw a point uniformly from the unit cube."""
    return random_units(schedule, trial)


def survives(schedule: Schedule, ledger: Ledger, trials: np.ndarray, rung: int) -> np.ndarray:
    """Return a mask that is True for all trials."""
    return np.ones(len(trials), bool)


METHOD = Method("random", propose, survives)
