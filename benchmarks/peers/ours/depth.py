"""Deep networks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.compiled import compiled
from benchmarks.peers.ours.training import found, start
from benchmarks.reference_depth import depth_error
from benchmarks.work import Deepening, Program, depth_inputs
from nnjax import data, losses, nn, optim, train
from nnjax.debug.flops import flops
from nnjax.types import TrainState


def depth(job: Deepening, form: str) -> Program:
    """A jitted `Run.steps`. repeat: a scan over the blocks. remat: the same, with less memory. unrolled: `serial`."""
    block = nn.residual(nn.dense(job.width), jax.nn.relu)
    nets = {
        "repeat": lambda: nn.repeat(job.blocks, block),
        "remat": lambda: nn.repeat(job.blocks, nn.remat(block)),
        "unrolled": lambda: nn.serial(*(job.blocks * [block])),
    }
    run = train.Run(nets[form](), losses.squared_error, optim.sgd(job.rate), batch_size=None)
    inputs = depth_inputs(job)
    examples = data.Data(jnp.asarray(inputs.x), jnp.asarray(inputs.y))
    layers = list(zip(*inputs.layers[0], strict=True)) if form == "unrolled" else inputs.layers
    ts = start(run, layers, jax.random.key(1), examples)
    program = compiled(jax.jit(partial(run.steps, n=job.steps), donate_argnums=0), ts, examples)

    def error(ts: TrainState) -> float:
        parts = found(ts)
        w, b = (np.stack(parts[::2]), np.stack(parts[1::2])) if form == "unrolled" else parts
        return depth_error(job, w, b)

    parameters = job.blocks * job.width * (job.width + 1)
    return Program(
        state=ts,
        call=lambda ts: program.call(ts, examples)[0],
        block=jax.block_until_ready,
        error=error,
        units=job.steps,
        stages=program.stages,
        memory=program.memory,
        # what remat computes again is no work that others do
        flops=0 if form == "remat" else flops(run.step, ts, examples).total,
        bytes=4 * (2 * parameters + 2 * job.batch * job.width),
    )
