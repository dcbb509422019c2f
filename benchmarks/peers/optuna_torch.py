"""Search with Optuna and PyTorch networks, in one process or one per core, with asynchronous successive halving."""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.harness.environment import usable_cores
from benchmarks.jobs.definitions import SettingSearch, Training
from benchmarks.jobs.program import Program
from benchmarks.jobs.setting_search import Searches, Split, add_search, search_error, search_figures, split_rows
from benchmarks.peers._torch.device import useful_threads

NAME = "Optuna, torch eager"
NEEDS = ("optuna", "torch")
FORMS = {"setting_search": ("tpe", "random", "tpe in processes")}
RARE = ("random",)

optuna.logging.set_verbosity(optuna.logging.ERROR)


def setting_search(job: SettingSearch, form: str) -> Program:
    """Search with TPE or random settings and asynchronous successive halving, in this process or in one per core.

    Raises:
      ValueError: if the data set is not on this machine.
    """
    inputs = split_rows(job, 0).x.shape[1]
    torch.set_num_threads(useful_threads(Training((inputs, *job.hidden, job.outputs), job.batch, job.batch)))
    workers = usable_cores() if form.endswith("in processes") else 1
    pool = ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else None
    if pool is not None:
        list(pool.map(_is_ready, range(4 * workers)))  # wait until the processes have imported everything

    def call(searches: Searches) -> Searches:
        seed = searches.seed
        if pool is None:
            study = optuna.create_study(sampler=_sampler(form, seed), pruner=_pruner(job))
            study.optimize(partial(_objective, job, _tensors(job, split_rows(job, seed)), seed), n_trials=job.trials)
        else:
            with TemporaryDirectory() as folder:
                path = Path(folder) / "journal"
                study = optuna.create_study(study_name="search", storage=_storage(path), pruner=_pruner(job))
                shares = [job.trials // workers + (i < job.trials % workers) for i in range(workers)]
                parts = [pool.submit(_optimize, job, form, seed, path, i, share) for i, share in enumerate(shares)]
                for part in parts:
                    part.result()
                trials = study.get_trials()
                study = optuna.create_study()
                study.add_trials(trials)
        layers = None if pool is not None else study.best_trial.user_attrs["layers"]
        epochs = sum(max(trial.intermediate_values) for trial in study.trials)
        return add_search(job, searches, study.best_value, len(study.trials), epochs, layers)

    return Program(
        state=Searches(0, (), 0, None),
        call=call,
        block=lambda _: None,
        error=partial(search_error, job),
        units=1,
        figures=search_figures,
    )


def _is_ready(i: int) -> int:
    return i


def _optimize(job: SettingSearch, form: str, seed: int, path: Path, worker: int, trials: int) -> None:
    """Run some of the trials in this process."""
    torch.set_num_threads(1)
    study = optuna.load_study(
        study_name="search",
        storage=_storage(path),
        sampler=_sampler(form, seed + 1000 * (worker + 1)),
        pruner=_pruner(job),
    )
    objective = partial(_objective, job, _tensors(job, split_rows(job, seed)), seed, keep=False)
    study.optimize(objective, n_trials=trials)


def _storage(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


def _sampler(form: str, seed: int) -> Any:
    kind = optuna.samplers.RandomSampler if form == "random" else optuna.samplers.TPESampler
    return kind(seed=seed)


def _pruner(job: SettingSearch) -> Any:
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=job.rungs[0], reduction_factor=3)


def _tensors(job: SettingSearch, split: Split) -> tuple[Tensor, ...]:
    tensors = [torch.from_numpy(array.copy()) for array in split[:4]]
    return tuple(t.long() if job.outputs > 1 and i % 2 else t for i, t in enumerate(tensors))


def _objective(job: SettingSearch, tensors: tuple[Tensor, ...], seed: int, trial: Any, *, keep: bool = True) -> float:
    """Train a network until the last rung or until it is pruned, and return its lowest validation loss at a rung."""
    rate = trial.suggest_float("rate", *job.rates, log=True)
    decay = trial.suggest_float("decay", *job.decays, log=True)
    x, y, held_out_x, held_out_y = tensors
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((x.shape[1], *job.hidden, job.outputs)):
        dense = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(dense.weight, nonlinearity="linear" if len(layers) == 2 * len(job.hidden) else "relu")
        nn.init.zeros_(dense.bias)
        layers += [dense, nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": decay}, {"params": biases}]
    optimizer = torch.optim.Adam(groups, rate, fused=True)
    loss_of: Any = functional.cross_entropy if job.outputs > 1 else functional.mse_loss
    best = float("inf")
    for epoch in range(1, job.rungs[-1] + 1):
        order = torch.randperm(len(x))
        for batch_x, batch_y in zip(torch.split(x[order], job.batch), torch.split(y[order], job.batch), strict=True):
            optimizer.zero_grad(set_to_none=True)
            batch_loss = loss_of(model(batch_x), batch_y)
            batch_loss.backward()
            optimizer.step()
        if epoch in job.rungs:
            with torch.inference_mode():
                loss = float(loss_of(model(held_out_x), held_out_y))
            if loss < best:
                best = loss
                arrays = [(p.mT if p.ndim == 2 else p).detach().numpy().copy() for p in model.parameters()]
            trial.report(loss, epoch)
            if epoch < job.rungs[-1] and trial.should_prune():
                raise optuna.TrialPruned
    if keep and np.isfinite(best):
        trial.set_user_attr("layers", arrays)
    return best if np.isfinite(best) else float("nan")
