"""Runs that are stopped, interrupted or killed anywhere, and resumed, end bitwise identical to uninterrupted ones."""

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_runs import DATA, HELD_OUT, KEY, NET, RATE, X, Y, assert_equal, assert_same_result, make_run, stop_at

import nnjax
from nnjax import losses, metrics, nn, optim, train
from nnjax.storage import checkpoint
from nnjax.storage.lock import folder_lock
from nnjax.train.engine import fingerprint
from nnjax.types import Data

KILLS = 20 if os.environ.get("NNJAX_THOROUGH") else 5
RUN = make_run()
FOLDS = train.k_fold(jax.random.key(0), 20, 3)
BASE = {"epochs": 4, "key": KEY, "progress": False, "save_every": 0, "chunk_steps": 4, "callback_every": 4}


def fit(run=RUN, data=DATA, **settings):
    """Fit with checkpoints after every 4 steps, and without validation."""
    return train.fit(run, data, **BASE | settings)


@pytest.mark.parametrize("keep", [1, 3])
def test_resumed_from_any_checkpoint(keep, tmp_path):
    undisturbed = fit(members=2, validation=HELD_OUT)
    for step in (1, 9, 10):
        out = tmp_path / str(step)
        fit(members=2, validation=HELD_OUT, out=out, keep=keep, callbacks=[stop_at(step)], callback_every=1)
        assert checkpoint.step_of(checkpoint.files(out)[-1]) == step
        assert len(checkpoint.files(out)) <= keep + 1
        assert_same_result(fit(members=2, validation=HELD_OUT, out=out, resume=True), undisturbed)


# Fresh and continued runs


def test_resume_starts_fresh_in_an_empty_folder(tmp_path):
    assert_same_result(fit(out=tmp_path / "new", resume=True), fit())


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    fit(out=tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=r"contains checkpoints of a run up to step-000000000020.*resume=True"):
        fit(out=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("settings", [{}, {"members": 2, "validation": HELD_OUT}], ids=["single run", "members"])
def test_more_epochs_than_before(settings, tmp_path):
    fit(epochs=2, out=tmp_path, **settings)
    assert_same_result(fit(epochs=5.5, out=tmp_path, resume=True, **settings), fit(epochs=5.5, **settings))


@pytest.mark.parametrize("every", [2, 3, 10])
@pytest.mark.parametrize("patience", [None, 2])
def test_more_epochs_validate_as_if_never_stopped(every, patience, tmp_path):
    """The validation after the last epoch of the shorter run is not one of the longer run's."""
    settings = {"validation": HELD_OUT, "validate_every": every, "patience": patience, "members": 2}
    for epochs in (1, 3, 4.5):
        short = fit(epochs=epochs, out=tmp_path, resume=True, **settings)
        assert_same_result(short, fit(epochs=epochs, **settings))
        assert "validation_loss" in short.history[-1]
    assert_same_result(fit(epochs=7, out=tmp_path, resume=True, **settings), fit(epochs=7, **settings))


@pytest.mark.parametrize(
    "settings", [{}, {"members": 2, "validation": HELD_OUT}, {"folds": FOLDS}], ids=["single run", "members", "folds"]
)
@pytest.mark.parametrize("epochs", [0, 1, 2.5])
def test_fewer_epochs_than_saved_are_refused(settings, epochs, tmp_path):
    fit(epochs=3, out=tmp_path, **settings)
    with pytest.raises(ValueError, match=rf"epochs={epochs:g} is \d+ steps, but .* has already taken \d+ steps \(.*3"):
        fit(epochs=epochs, out=tmp_path, resume=True, **settings)


@pytest.mark.filterwarnings("ignore:fit. the loss:RuntimeWarning")
@pytest.mark.parametrize("members", [None, 2])
def test_a_run_that_diverges_is_saved(members, tmp_path):
    def grows(at):  # finite losses for an epoch, then NaN when the network is validated
        return jnp.where(at < 7, 1e-3, 3e38)

    hot = partial(fit, make_run(optimizer=optim.sgd(grows)), members=members, validation=HELD_OUT, epochs=6)
    undisturbed = hot(chunk_steps=None)
    assert (undisturbed.diverged >= 0).all()
    hot(out=tmp_path, callbacks=[stop_at(6)], callback_every=1)
    assert_same_result(hot(out=tmp_path, resume=True), undisturbed)
    assert_same_result(hot(out=tmp_path, resume=True), undisturbed)


# Runs that differ


def shifted(prediction, target):
    return losses.cross_entropy(prediction, target) + 1e-3


def accurate(*layers, **settings):
    """The run that was saved, or one that differs from it in these layers or settings."""
    return make_run(nn.serial(*layers) if layers else NET, metrics=(metrics.accuracy,), **settings)


def accuracy(prediction, target, weights):
    """A metric that changed under its name."""
    return metrics.accuracy(prediction, target, weights) ** 2


SAVED = {"members": 2, "validation": HELD_OUT}
FIRST, LAST = (nn.dense(4, bias=False), nn.batch_norm()), nn.dense(2)
DIFFERENT = {  # the change, and the row of the table that names it
    "architecture": ({"run": accurate(nn.dense(4), jax.nn.relu, LAST)}, "step"),
    "width": ({"run": accurate(nn.dense(6, bias=False), nn.batch_norm(), jax.nn.relu, nn.dropout(0.2), LAST)}, "step"),
    "activation": ({"run": accurate(*FIRST, jnp.tanh, nn.dropout(0.2), LAST)}, "step"),
    "dropout": ({"run": accurate(*FIRST, jax.nn.relu, nn.dropout(0.3), LAST)}, "step"),
    "learning rate": ({"run": accurate(optimizer=optim.adam(1.00001 * RATE))}, "step"),
    "optimizer": ({"run": accurate(optimizer=optim.nadam(RATE))}, "step"),
    "loss": ({"run": train.Run(NET, shifted, optim.adam(RATE), batch_size=4, metrics=(metrics.accuracy,))}, "step"),
    "batch size": ({"run": accurate(batch_size=5)}, r"batch_size +4 +5\n"),
    "metrics": ({"run": make_run(metrics=(metrics.nll,))}, r"metrics +accuracy +nll\n"),
    "a metric under its name": ({"run": make_run(metrics=(accuracy,))}, "evaluation"),
    "data": ({"data": Data(X.at[7, 1].add(1e-6), Y)}, "data"),
    "a label": ({"data": Data(X, Y.at[19].set(1 - Y[19]))}, "data"),
    "weights": ({"data": Data(X, Y, jnp.ones(20))}, "data"),
    "seed": ({"key": jax.random.key(6)}, "key"),
    "members": ({"members": 3}, r"members +2 +3\n"),
    "single run": ({"members": None}, r"members +2 +1\n"),
    "strategy": ({"strategy": "vmap"}, r"strategy +map +vmap\n"),
    "rows": ({"folds": train.k_fold(jax.random.key(0), 20, 2)}, "rows"),
    "validation": ({"validation": Data(X[:7], Y[:7])}, "validation"),
    "no validation": ({"validation": None}, "validation"),
    "patience": ({"patience": 3}, "validation"),
}


@pytest.fixture(scope="module")
def stopped_at_9(tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped") / "run"
    with jax.numpy_dtype_promotion("strict"):
        fit(out=out, callbacks=[stop_at(9)], callback_every=1, **SAVED)
    return out


@pytest.mark.parametrize("what", DIFFERENT)
def test_another_run_is_refused(what, stopped_at_9):
    change, row = DIFFERENT[what]
    before = {path.name: path.read_bytes() for path in stopped_at_9.iterdir()}
    with pytest.raises(ValueError, match=rf"cannot be resumed exactly:\n +saved +now\n(  .*\n)*  {row}") as error:
        fit(**SAVED | change, out=stopped_at_9, resume=True)
    fits = what not in ("architecture", "width", "members", "single run", "no validation")
    assert ("resume='anyway' continues anyway" in str(error.value)) == fits
    assert str(error.value).endswith("choose another out=")
    lists_arrays = what in ("architecture", "width")  # otherwise, the table has the whole difference
    assert ("does not have the expected arrays" in str(error.value)) == lists_arrays
    assert not re.search(r"\n  (jax|nnjax|device|cores) ", str(error.value)), "only what differs is in the table"
    assert {path.name: path.read_bytes() for path in stopped_at_9.iterdir()} == before


@pytest.mark.parametrize("package", ["jax", "jaxlib", "optax", "nnjax"])
def test_another_version_is_refused(package, stopped_at_9, monkeypatch):
    installed = fingerprint.machine_fingerprint()
    monkeypatch.setattr(fingerprint, "machine_fingerprint", lambda: installed | {package: "9.9.9"})
    with pytest.raises(ValueError, match=rf"\n  {package} +{installed[package]} +9\.9\.9\n"):
        fit(**SAVED, out=stopped_at_9, resume=True)


def test_another_hyper_parameter_of_a_sweep_is_refused(tmp_path):
    make = lambda hp: make_run(optimizer=optim.adam(hp["rate"]))  # noqa: E731
    again = partial(train.sweep, make, validation=HELD_OUT, epochs=1, progress=False, out=tmp_path, resume=True)
    again({"rate": [1e-3, 1e-2]}, DATA)
    with pytest.raises(ValueError, match=r"\n  hyper-parameters +[0-9a-f]+ +[0-9a-f]+\n"):
        again({"rate": [1e-3, 1.1e-2]}, DATA)


def test_another_number_of_epochs_between_validations_is_refused(tmp_path):
    fit(validation=HELD_OUT, epochs=2, out=tmp_path)
    with pytest.raises(ValueError, match="cannot be resumed exactly") as caught:
        fit(validation=HELD_OUT, validate_every=2, out=tmp_path, resume=True)
    assert "validation " in str(caught.value)


@pytest.mark.parametrize(("first", "second"), [(None, 2), (2, None)])
def test_other_groups_are_refused(first, second, tmp_path):
    fit(members=3, group=first, epochs=1, out=tmp_path)
    with pytest.raises(FileExistsError, match="pass the same group=, or choose another out="):
        fit(members=3, group=second, epochs=1, out=tmp_path)
    with pytest.raises(ValueError, match="were trained in"):
        fit(members=3, group=second, epochs=1, out=tmp_path, resume=True)


def test_scores_of_any_dtype_and_64_bits_are_resumed(tmp_path):
    def hits(prediction, target, weights=None):
        return (prediction.argmax(-1) == target).sum()

    with jax.enable_x64(True):
        wide = Data(np.asarray(X, np.float64), np.asarray(Y, np.int64))
        run = make_run(metrics=(hits,))
        fit(run, wide, validation=wide, epochs=1, out=tmp_path)
        resumed = fit(run, wide, validation=wide, epochs=2, out=tmp_path, resume=True)
        whole = fit(run, wide, validation=wide, epochs=2)
    assert whole.losses.dtype == np.float64
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    assert resumed.history == whole.history


def test_anyway_continues_with_another_rate(tmp_path):
    saved(tmp_path, 9)
    slower = fit(accurate(optimizer=optim.adam(1e-3)), out=tmp_path, resume="anyway")
    undisturbed = fit()
    np.testing.assert_array_equal(slower.losses[:9], undisturbed.losses[:9])
    assert slower.losses[9] == undisturbed.losses[9]  # before the first step of the other rate
    assert slower.losses[10] != undisturbed.losses[10]
    assert len(slower.losses) == 20


def test_anyway_continues_with_other_metrics(tmp_path):
    fit(out=tmp_path, validation=HELD_OUT, callbacks=[stop_at(9)], callback_every=1)
    result = fit(make_run(metrics=(metrics.nll,)), validation=HELD_OUT, out=tmp_path, resume="anyway")
    assert_equal(result.ts, fit().ts)
    assert "validation_nll" in result.history[-1]


def test_anyway_needs_the_same_shapes(stopped_at_9):
    wider, _ = DIFFERENT["width"]
    shapes = r"does not have the expected arrays:\n(.*\n)* .*params/0/w: saved \(\(2, 3, 4\)"
    with pytest.raises(ValueError, match=shapes):
        fit(**SAVED | wider, out=stopped_at_9, resume="anyway")


# Damage


def saved(out, *steps):
    """A folder with a checkpoint of each of these steps."""
    for step in steps:
        fit(out=out, resume=True, callbacks=[stop_at(step)], callback_every=1, save_every=1e9)
    assert [checkpoint.step_of(path) for path in checkpoint.files(out)] == list(steps)


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = b""
    else:
        content[{"header": 40, "leaf": -3}[how]] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "header", "leaf"])
def test_a_damaged_checkpoint_is_skipped(how, tmp_path):
    saved(tmp_path, 5, 13)
    newest, before = checkpoint.files(tmp_path)[-1], checkpoint.files(tmp_path)[-2]
    damage(newest, how)
    with pytest.warns(UserWarning, match=rf"{newest.name}.*{before.name} is used instead"):
        result = fit(out=tmp_path, resume=True)
    assert_same_result(result, fit())


def test_all_checkpoints_damaged(tmp_path):
    saved(tmp_path, 3, 5, 13)
    files = checkpoint.files(tmp_path)
    for path, how in zip(files, ["leaf", "truncated", "header"], strict=True):
        damage(path, how)
    with pytest.raises(
        ValueError, match="(?s)holds no intact checkpoint:.*" + ".*".join(path.name for path in reversed(files))
    ):
        fit(out=tmp_path, resume=True)


def test_a_half_written_file_of_a_killed_process_is_no_checkpoint(tmp_path):
    saved(tmp_path, 13)
    (tmp_path / ".step-000000000099.safetensors.123").write_bytes(b"half")
    assert_same_result(fit(out=tmp_path, resume=True), fit())
    assert not list(tmp_path.glob(".step*"))


def test_a_folder_that_another_process_writes_to_is_not_read(tmp_path):
    """The other process may delete a listed file before it is read."""
    saved(tmp_path, 3)
    checkpoint.files(tmp_path)[0].write_bytes(b"")
    for resume in (False, True, "anyway"):
        with folder_lock(tmp_path), pytest.raises(BlockingIOError, match="another process"):
            fit(out=tmp_path, resume=resume)


# Ctrl-C


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("members", [None, 2])
def test_an_interrupted_run_is_saved_and_resumed(number, members, tmp_path):
    def send(ts, record):
        if record["step"] == 12:
            os.kill(os.getpid(), number)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        KeyboardInterrupt, match=rf"stopped after step 12, saved in {tmp_path}; .* resume=True continues"
    ):
        fit(members=members, out=tmp_path, callbacks=[send], save_every=1e9)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert [checkpoint.step_of(path) for path in checkpoint.files(tmp_path)] == [12]
    assert_same_result(fit(members=members, out=tmp_path, resume=True), fit(members=members))


def test_interrupted_without_a_folder():
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped after step 4, not saved, because out= was not passed; resume=error"
    ):
        fit(callbacks=[lambda ts, record: os.kill(os.getpid(), signal.SIGINT)])


def test_the_second_interrupt_takes_effect_at_once(tmp_path):
    after = []

    def send(ts, record):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        after.append(record)

    with pytest.raises(KeyboardInterrupt) as error:
        fit(out=tmp_path, callbacks=[send], save_every=1e9)
    assert not after
    assert not error.value.args
    assert_same_result(fit(out=tmp_path, resume=True), fit())


def test_an_interrupt_during_the_last_save_is_not_swallowed(tmp_path, monkeypatch):
    real, sent = os.fsync, []

    def fsync(descriptor):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 20, saved in"):
        fit(out=tmp_path, save_every=1e9)
    assert_same_result(fit(out=tmp_path, resume=True), fit())


def test_an_interrupt_while_it_compiles(tmp_path):
    traces = []

    def once(prediction, target, weights=None):
        traces.append(prediction)
        if len(traces) == 2:  # first for the fingerprint, then with the validation, after the chunk
            os.kill(os.getpid(), signal.SIGINT)
        return jnp.zeros(())

    run = make_run(metrics=(once,))
    with pytest.raises(KeyboardInterrupt, match="stopped after step 4, saved in"):
        fit(run, validation=HELD_OUT, out=tmp_path, save_every=1e9)
    assert_same_result(fit(run, validation=HELD_OUT, out=tmp_path, resume=True), fit(run, validation=HELD_OUT))


def test_an_interrupt_before_the_first_state_leaves_nothing(tmp_path):
    sent = []

    def loss(prediction, target):
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return losses.cross_entropy(prediction, target)

    run = train.Run(NET, loss, optim.adam(1e-2), batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        fit(run, out=tmp_path / "new")
    assert not checkpoint.files(tmp_path / "new")
    assert_same_result(fit(run, out=tmp_path / "new", resume=True), fit(run))


def test_in_another_thread_signals_stay_as_they_are(tmp_path):
    seen, results = [], []

    def look(ts, record):
        seen.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

    def work():
        results.append(fit(out=tmp_path, callbacks=[look]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert set(seen) == {(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))}
    assert_same_result(results[0], fit())


# kill -9

KILLED = """
import os, random, shutil, signal, sys, time, warnings
from pathlib import Path
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, numpy as np
from nnjax import losses, nn, optim, train
from nnjax.storage import checkpoint

jax.config.update("jax_compilation_cache_dir", sys.argv[1] + "/cache")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
folder, kills = Path(sys.argv[1]), int(sys.argv[2])
warnings.filterwarnings("ignore", message="os.fork")  # nothing of JAX runs yet
x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
y = (x.sum(1) > 0).astype(np.int32)


def life(out, slow, tell):
    if slow:
        real = os.fsync
        os.fsync = lambda descriptor: (real(descriptor), time.sleep(0.05))
    run = train.Run(nn.mlp([4], 2, norm="batch", dropout=0.1), losses.cross_entropy, optim.adam(1e-2), batch_size=4)
    result = train.fit(
        run, (x, y), epochs=120, members=2, validation=(x[:9], y[:9]), validate_every=20, out=out,
        resume=out is not None, save_every=0, progress=False, callback_every=7,
        callbacks=[lambda ts, record: tell(b".") and None],
    )
    history = [{k: np.asarray(v) for k, v in record.items()} for record in result.history]
    return checkpoint.digest((result.ts, result.best, result.losses, history))


def start(out, slow=False):
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    try:
        digest = life(out, slow, lambda text: os.write(writer, text))
        os.write(writer, digest.encode())
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def finished(child, reader):
    said = b""
    while part := os.read(reader, 1 << 16):
        said += part
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    return said[-64:].decode()


undisturbed = finished(*start(None))
assert finished(*start(folder / "whole")) == undisturbed, "saved"  # now all programs are in the cache
chance = random.Random(0)
done = inside = runs = 0
while done < kills:
    out = folder / f"run-{runs}"
    while done < kills:
        child, reader = start(out, slow=chance.random() < 0.5)
        if chance.random() < 0.1:
            time.sleep(chance.uniform(0, 1))  # while it starts
        else:
            os.read(reader, 1)
            time.sleep(chance.uniform(0, 0.25))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        os.close(reader)
        if not os.WIFSIGNALED(status):
            break  # it was faster
        done += 1
        inside += any(path.name.startswith(".step") for path in out.iterdir()) if out.exists() else 0
        steps = [checkpoint.step_of(path) for path in checkpoint.files(out)]
        if steps and max(steps) > 900:
            break
    assert finished(*start(out)) == undisturbed, f"run {runs}"
    shutil.rmtree(out)
    runs += 1
print(done, inside, runs)
"""


def test_killed_at_random_moments(tmp_path):
    program = [sys.executable, "-c", KILLED, str(tmp_path), str(KILLS)]
    root = Path(nnjax.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    result = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    done, inside, runs = map(int, result.stdout.split())
    print(f"{done} kills, {inside} of them inside a save, {runs} runs")
    assert done == KILLS
    assert inside >= KILLS // 10


# Digests of the step

DIGESTS = """
import jax, jax.numpy as jnp, numpy as np, optax
from nnjax import losses, nn, optim, train
from nnjax.train.engine.ensemble import Ensemble
from nnjax.train.engine.fingerprint import step_digest
from nnjax.types import Data

EXAMPLES = Data(np.zeros((8, 4), np.float32), np.zeros((8, 3), np.float32))


def digest(loss=losses.squared_error, optimizer=None, net=None, micro_batches=1):
    run = train.Run(net or nn.mlp([5], 3), loss, optimizer or optim.sgd(0.1), batch_size=4, micro_batches=micro_batches)
    return step_digest(Ensemble(run), jax.random.key(0), None, EXAMPLES)


def plain(c):
    return lambda p, y: ((p - y) ** 2 * c).sum(-1)


def jitted(c):
    return jax.jit(plain(c))


def rematted(c):
    return jax.checkpoint(plain(c))


def scanned(c):
    def loss(p, y):
        return jax.lax.scan(lambda s, _: (s + plain(c)(p, y), None), jnp.zeros(p.shape[0]), None, length=3)[0]
    return loss


def branched(c):
    return lambda p, y: jax.lax.cond(p.sum() > 0, plain(c), plain(2 * c), p, y)


def ruled(c):
    f = jax.custom_jvp(lambda x: jnp.sum(x, -1))
    f.defjvp(lambda x, t: (f(*x), jnp.sum(c * t[0], -1)))
    return lambda p, y: f((p - y) ** 2)


def drawn(c):
    key = jax.random.key(int(np.sum(c)))
    return lambda p, y: ((p - y) ** 2).sum(-1) + jax.random.uniform(key, (4,))


LOSSES = [plain, jitted, rematted, scanned, branched, ruled, drawn]
block = nn.residual(nn.dense(4), jax.nn.silu)
NETS = {
    "gelu": nn.mlp([5], 3, activation=jax.nn.gelu),
    "selu": nn.mlp([5], 3, activation=jax.nn.selu),
    "repeat": nn.serial(nn.dense(4), nn.repeat(3, block), nn.dense(3)),
    "remat": nn.serial(nn.remat(block), nn.dense(3)),
    "dropout": nn.mlp([5], 3, dropout=0.1, norm="batch"),
}
matrices = lambda params: jax.tree.map(lambda a: a.ndim > 1, params)
OPTIMIZERS = {
    "schedule": optim.adam(optax.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)),
    "longer schedule": optim.adam(optax.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 101)),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optim.adamw(1e-3, mask=matrices)),
    "chain of another norm": optax.chain(optax.clip_by_global_norm(1.1), optim.adamw(1e-3, mask=matrices)),
    "every": optax.MultiSteps(optax.adamw(1e-3), 3).gradient_transformation(),
}


def all_digests():
    found = {}
    c = np.array([1, 2, 3], np.float32)
    for make in LOSSES:
        found[make.__name__] = digest(make(c))
        found[make.__name__ + ", other"] = digest(make(c + np.array([0, 0, 1], np.float32)))
    found["number"] = digest(plain(0.1))
    found["next number"] = digest(plain(float(np.nextafter(np.float32(0.1), np.float32(1)))))
    found |= {name: digest(net=net) for name, net in NETS.items()}
    found |= {name: digest(optimizer=optimizer) for name, optimizer in OPTIMIZERS.items()}
    found["micro-batches"] = digest(micro_batches=2)
    found["default"] = digest()
    return found
"""


def test_the_digest_of_a_step_is_the_same_in_all_processes_and_different_for_different_runs():
    root = Path(nnjax.__file__).parents[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DIGESTS + "\nfor item in all_digests().items(): print(*item, sep=': ')"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
        )
        for seed in ("1", "2")
    ]
    one, other = (process.communicate()[0].splitlines() for process in processes)
    assert one == other
    assert len(one) == 28
    digests = [line.split(": ")[1] for line in one]
    repeated = [line for line in one if digests.count(line.split(": ")[1]) > 1]
    assert not repeated


def test_the_same_run_built_twice_has_one_digest():
    """New lambdas and arrays have other addresses."""
    namespaces = [{}, {}]
    for namespace in namespaces:
        exec(DIGESTS, namespace)
    c = np.ones(3, np.float32)
    with jax.numpy_rank_promotion("allow"):
        for name in ("plain", "jitted", "ruled", "scanned"):
            one, other = (namespace["digest"](namespace[name](c)) for namespace in namespaces)
            assert one == other, name


def test_a_copy_of_the_package_that_is_not_installed_saves_runs(monkeypatch, tmp_path):
    find = importlib.metadata.Distribution.from_name

    def find_others(name):
        if name == "nnjax":
            raise importlib.metadata.PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(importlib.metadata.Distribution, "from_name", find_others)
    assert_same_result(fit(out=tmp_path), fit())
    assert fingerprint.machine_fingerprint()["nnjax"] == nnjax.__version__
