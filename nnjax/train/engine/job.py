"""Define a job: an ensemble and all its arguments, on the host."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from nnjax.data import Source, sample
from nnjax.train.engine.device_loop import initial_states
from nnjax.train.engine.ensemble import Ensemble, index_tree
from nnjax.train.engine.fit_state import FitState
from nnjax.train.engine.placement import replicate, shard_members
from nnjax.train.folds import Rows
from nnjax.types import Data, Key, PyTree

EPOCH_STEPS = 100  # number of steps that count as an epoch in a run without data


class Members(NamedTuple):
    """Per-member arguments of a job; every array has a leading axis (members, ...)."""

    keys: Key
    hyper: PyTree  # hyper-parameters for `make_run`; None if the run is fixed
    rows: Rows | None  # rows to train on; None means all
    held_out_rows: Rows | None  # rows to validate on; None means all
    ends: np.ndarray  # (members, epochs) int, the step after which each epoch ends
    start: tuple[PyTree, PyTree] | None = None  # initial parameters and state of the network; None means random ones


class Job(NamedTuple):
    """An ensemble and all its arguments, on the host."""

    ensemble: Ensemble
    members: Members
    data: Data | Source
    held_out: Data | None  # validation data
    validate_every: int  # number of epochs between validations
    patience: int | None  # number of validations without improvement after which a member is stopped
    epochs: float  # number of epochs; the last one may be a fraction
    epoch_steps: float  # number of steps per epoch, for progress reports
    first: int = 0  # index of the first member, if this is one group of several
    numbered: bool = True  # False for a single run, whose messages name no member

    @property
    def validated(self) -> range:
        """Return the indices of the complete epochs that end with a validation; the last epoch always does, too."""
        every = self.validate_every
        return range(0) if self.held_out is None else range(every - 1, int(self.epochs), every)

    @property
    def last_epoch(self) -> int:
        """Return the index of the last epoch, or -1 without epochs."""
        return self.members.ends.shape[1] - 1

    @property
    def total_steps(self) -> int:
        """Return the maximum number of steps that any member takes."""
        return int(self.members.ends[:, -1].max()) if self.members.ends.size else 0

    def select(self, members: slice) -> "Job":
        """Return the job for a slice of the members."""
        ensemble = replace(self.ensemble, members=members.stop - members.start)
        return self._replace(
            ensemble=ensemble, members=index_tree(self.members, members), first=self.first + members.start
        )


def first_state(job: Job, *, validated: bool) -> FitState:
    """Return the state before the first step, on the device; with a best network if members are validated."""
    members = shard_members(job.ensemble, (job.members.keys, job.members.hyper, job.members.start))
    examples = replicate(job.ensemble, sample(job.data))
    return initial_states(job.ensemble, *members, examples, validated=validated)


def state_shapes(job: Job, *, validated: bool) -> Any:
    """Return the shapes of the state (members, ...) that is saved in a checkpoint."""
    on_one_device = job._replace(ensemble=replace(job.ensemble, mesh=None))
    return jax.eval_shape(lambda: first_state(on_one_device, validated=validated))
