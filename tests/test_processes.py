"""Several processes as one program have the result and files of one process. If one is killed, the others end."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import nnjax
from nnjax.storage import checkpoint
from nnjax.train.engine import distributed

pytestmark = pytest.mark.optimized

ROOT = Path(nnjax.__file__).parents[1]
THOROUGH = os.environ.get("NNJAX_THOROUGH") == "1"
EPOCHS = 30  # of 8 steps: time enough to be killed in
PROGRAM = """
import sys
import jax
import numpy as np
from nnjax import data, losses, nn, optim, train
from nnjax.train.engine import distributed
from nnjax.storage import checkpoint

index, count, port, axis, out, cache, epochs, kind = sys.argv[1:]
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
if int(count) > 1:
    distributed.join_processes(f"127.0.0.1:{port}", int(count), int(index))
x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
y = (np.arange(64) % 3).astype(np.int32)
mesh = jax.make_mesh((jax.device_count(),), (axis,), axis_types=(jax.sharding.AxisType.Auto,))
members = 3 if axis == "members" else None  # and a fourth that fills up
run = train.Run(nn.mlp([8], 3, norm="batch"), losses.cross_entropy, optim.adam(3e-3), batch_size=8)
result = train.fit(
    run, data.source(x, y) if kind == "source" else (x, y), validation=(x[:20], y[:20]), epochs=float(epochs),
    members=members, mesh=mesh, out=out, resume=out is not None, save_every=0, chunk_steps=8, progress=False,
    callbacks=[lambda ts, record: print("step", record["step"], flush=True)],
)
history = [{name: np.asarray(value).tolist() for name, value in record.items()} for record in result.history]
print("result", checkpoint.digest((result.losses, history)), np.atleast_2d(result.losses)[0].tolist())
"""


class Children(list):
    """Processes that end with the test."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for child in self:
            child.kill()
            child.wait()
            child.stdout.close()
            child.stderr.close()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(children, count, axis, out, cache, kind="memory"):
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)  # one device for each process
    for index in range(count):
        arguments = map(str, [index, count, port, axis, out, cache, EPOCHS, kind])
        command = [sys.executable, "-c", PROGRAM, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        children.append(subprocess.Popen(command, **pipes, env=environment))
    return children[-count:]


def results(started):
    """Return the last line of each process, which describes its result."""
    found = []
    for child in started:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err[-3000:]
        found.append(out.splitlines()[-1])
        assert found[-1].startswith("result "), out
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return the folder of the compiled programs of all processes."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache):
    """Return a function that returns the last line and the folder of a run with a number of processes, trained once."""
    runs = {}

    def run(axis, count, kind="memory"):
        case = axis, count, kind
        if case not in runs:
            out = tmp_path_factory.mktemp("-".join(map(str, case)))
            with Children() as children:
                lines = results(start(children, count, axis, out, cache, kind))
            assert len(set(lines)) == 1, "each process has the whole result"
            runs[case] = lines[0], out
        return runs[case]

    return run


def same_files(out, other):
    """The last checkpoint has the same bytes."""
    one, two = (checkpoint.files(folder)[-1] for folder in (out, other))
    assert one.name == two.name == f"step-{EPOCHS * 8:012}.safetensors"
    assert one.read_bytes() == two.read_bytes()


def test_members_over_two_processes_have_the_bits_of_one(undisturbed):
    (one, out), (two, other) = undisturbed("members", 1), undisturbed("members", 2)
    assert one == two
    same_files(out, other)


@pytest.mark.parametrize("axis", ["members", "batch"] if THOROUGH else ["batch"])
def test_a_source_over_two_processes_has_the_bits_of_data_in_memory(axis, undisturbed):
    (memory, _), (source, _) = undisturbed(axis, 2), undisturbed(axis, 2, "source")
    assert source == memory


def test_a_batch_over_two_processes_is_that_of_one_to_rounding(undisturbed):
    one, two = (json.loads(undisturbed("batch", count)[0].split(" ", 2)[2]) for count in (1, 2))
    np.testing.assert_allclose(two[:8], one[:8], rtol=1e-4)
    assert len(one) == len(two) == EPOCHS * 8
    files = [[path.name for path in checkpoint.files(undisturbed("batch", count)[1])][-1] for count in (1, 2)]
    assert files[0] == files[1]


@pytest.mark.parametrize(("axis", "victim"), [("batch", 1), ("members", 0)] if THOROUGH else [("batch", 1)])
def test_if_one_is_killed_the_other_ends_and_the_run_can_be_resumed(axis, victim, undisturbed, cache, tmp_path):
    with Children() as children:
        pair = start(children, 2, axis, tmp_path, cache)
        for line in pair[0].stdout:
            if line.startswith("step") and int(line.split()[1]) >= 80:
                break
        pair[victim].send_signal(signal.SIGKILL)
        clock = time.perf_counter()
        other = pair[1 - victim]
        _, err = other.communicate(timeout=60)
        seconds = time.perf_counter() - clock
    print(f"{axis}, process {victim} killed: the other ended after {seconds:.1f} s with {other.returncode}")
    assert seconds < 60
    expected = (
        "ProcessLostError: fit: another process ended or cannot be reached: start all processes again; "
        f"resume=True continues from the last checkpoint in {tmp_path}"
    )
    if victim == 0 and other.returncode != 1:  # without its first process JAX may abort before Python can say anything
        expected = "This most likely indicates that another task died"
    assert expected in err
    assert 24 <= checkpoint.step_of(checkpoint.files(tmp_path)[-1]) < EPOCHS * 8

    said, out = undisturbed(axis, 2)
    with Children() as children:
        assert results(start(children, 2, axis, tmp_path, cache)) == [said, said]
    same_files(tmp_path, out)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"coordinator must be host:port, got 'localhost'"):
        distributed.join_processes("localhost", 2, 0)
    with pytest.raises(ValueError, match=r"index of the process must be in 0 … 1, got 2"):
        distributed.join_processes("localhost:1234", 2, 2)
    with pytest.raises(ValueError, match=r"index of the process must be in 0 … 1, got -1"):
        distributed.join_processes("localhost:1234", 2, -1)


def test_other_errors_are_unchanged():
    with pytest.raises(ValueError, match=r"^connection$"), distributed.explain_lost_process(Path("out")):
        raise ValueError("connection")  # one process has no others


def test_only_a_lost_process_is_explained(monkeypatch):
    left = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(atexit, "register", left.append)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"), distributed.explain_lost_process(None):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
    with pytest.raises(ValueError, match="shapes"), distributed.explain_lost_process(None):
        raise ValueError("shapes")
    assert not left
    with (
        pytest.raises(RuntimeError, match=r"start all processes again$") as error,
        distributed.explain_lost_process(None),
    ):
        raise jax.errors.JaxRuntimeError("INTERNAL: Gloo all-reduce failed: Connection reset by peer")
    assert "Gloo" in str(error.value.__cause__)
    assert len(left) == 1


def test_a_single_process_agrees_with_itself():
    assert distributed.all_agree(7, (True, False)) == (7, (True, False))


SEARCH = """
import sys
import jax
import numpy as np
from nnjax import losses, nn, optim, train
from nnjax.storage import checkpoint
from nnjax.train.engine import distributed

index, count, port, out = sys.argv[1:]
if int(count) > 1:
    distributed.join_processes(f"127.0.0.1:{port}", int(count), int(index))
x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
y = (np.arange(64) % 3).astype(np.int32)
mesh = jax.make_mesh((jax.device_count(),), ("members",), axis_types=(jax.sharding.AxisType.Auto,))
make_run = lambda hyper: train.Run(nn.dense(3), losses.cross_entropy, optim.sgd(hyper["rate"]), batch_size=8)
found = train.search(
    make_run, {"rate": train.log_uniform(1e-3, 0.3)}, (x, y), validation=(x[:20], y[:20]), trials=9, population=4,
    rungs=(1, 2), mesh=mesh, out=out, resume=out is not None, save_every=0,
)
rows = [{name: value for name, value in row.items() if name != "status"} for row in found.table]
print("result", checkpoint.digest((rows, found.best.params)))
"""


def test_a_search_over_two_processes_has_the_bits_of_one(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    with Children() as children:
        for count in (1, 2):
            port = free_port()
            for index in range(count):
                command = [sys.executable, "-c", SEARCH, str(index), str(count), str(port), str(tmp_path / str(count))]
                pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
                children.append(subprocess.Popen(command, **pipes, env=environment))
        assert len(set(results(children))) == 1
    one, two = (checkpoint.files(tmp_path / count)[-1] for count in "12")
    assert one.read_bytes() == two.read_bytes()
