"""Search for the best settings in one program, in which new trials replace bad ones."""

from functools import partial
from typing import Any

import jax
import optax

from benchmarks.jobs.definitions import SettingSearch
from benchmarks.jobs.program import Program
from benchmarks.jobs.setting_search import Searches, add_search, search_error, search_figures, split_rows
from benchmarks.peers._jax import all_cores
from benchmarks.peers.ours.training import layer_arrays
from nnjax import data, losses, nn, optim, train


def setting_search(job: SettingSearch, form: str) -> Program:
    """Search with `train.search`; the method is the first word of the form.

    Raises:
      ValueError: if the data set is not on this machine.
    """
    all_cores.make_cores_devices(form)
    method = form.split(maxsplit=1)[0]
    loss = losses.cross_entropy if job.outputs > 1 else losses.mean_squared_error
    split_rows(job, 0)  # raises ValueError early if the data set is not on this machine
    devices = min(jax.device_count(), job.population) if form.endswith(all_cores.SUFFIX) else 1
    mesh = None if devices == 1 else jax.make_mesh((devices,), ("members",), devices=jax.devices()[:devices])
    space = {"rate": train.log_uniform(*job.rates), "decay": train.log_uniform(*job.decays)}

    def make_run(hyper: dict[str, Any]) -> train.Run:
        decay = optax.add_decayed_weights(hyper["decay"], mask=lambda params: nn.mask(params, "**/w"))
        optimizer = optax.chain(decay, optim.adam(hyper["rate"]))
        return train.Run(nn.mlp(job.hidden, job.outputs), loss, optimizer, batch_size=job.batch)

    def call(searches: Searches) -> Searches:
        split = split_rows(job, searches.seed)
        result = train.search(
            make_run,
            space,
            data.Data(split.x, split.y),
            validation=data.Data(split.held_out_x, split.held_out_y),
            trials=job.trials,
            population=job.population,
            rungs=job.rungs,
            method=method,  # type: ignore[arg-type]
            key=jax.random.key(searches.seed),
            mesh=mesh,
            networks=1,
        )
        assert result.best is not None
        epochs = sum(row["epochs"] for row in result.table)
        layers = layer_arrays(result.best.params)
        return add_search(job, searches, result.best.score, len(result.table), epochs, layers)

    return Program(
        state=Searches(0, (), 0, None),
        call=call,
        block=lambda _: None,
        error=partial(search_error, job),
        units=1,
        figures=search_figures,
    )
