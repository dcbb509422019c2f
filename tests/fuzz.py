"""Feed damaged files and wrong arguments to nnjax, and count what is noticed: `python -m tests.fuzz --minutes 5`.

Every case has its own seed, and the line about a wrong case gives the command that repeats it. The outcomes are

- told: an error that nnjax itself raises, of a type that the command line reports as one sentence;
- accepted: no error, and the result is that of the intact file, or cannot be judged (the damage of a CSV file may be
  valid data);
- wrong: an error raised by other code, a hang, or a result that silently differs.
"""

import argparse
import contextlib
import io
import linecache
import secrets
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import nnjax
from nnjax import data, losses, metrics, nn, optim, train, uncertainty
from nnjax.cli.predict import predict_command
from nnjax.data._idx import read_idx
from nnjax.storage import checkpoint

PACKAGE = str(Path(nnjax.__file__).parent)
TIME_LIMIT = 60  # seconds a case
REPORTED = (ValueError, OSError, ModuleNotFoundError)  # errors that the command line turns into one sentence


class WrongError(Exception):
    """The result silently differs."""


class Hang(BaseException):
    """The case takes too long."""


class Kind(NamedTuple):
    """A kind of case: `run(rng, folder)` raises an error that is judged, or returns if the input was accepted."""

    run: Callable[[np.random.Generator, Path], None]
    errors: tuple[type[Exception], ...] = REPORTED


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content after one to three random changes."""
    for _ in range(rng.integers(1, 4)):
        i, j = sorted(rng.integers(0, len(content) + 1, 2).tolist())
        near = min(i + int(rng.integers(1, 9)), len(content))
        noise = rng.bytes(near - i)
        choices = [
            content[:i],  # truncated
            content[:i] + content[near:],  # some bytes lost
            content[:i] + noise + content[i:],  # some bytes inserted
            content[:i] + noise + content[near:],  # some bytes overwritten
            content[:i] + bytes(j - i) + content[j:],  # zeros, as after a crash
            content + content[i:j],  # a part twice
        ]
        if i < len(content):
            choices += [content[:i] + bytes([content[i] ^ 1 << int(rng.integers(8))]) + content[i + 1 :]] * 4
        content = choices[rng.integers(len(choices))]
    return content


def damaged_text(text: str, rng: np.random.Generator) -> bytes:
    """Return a table after changes that people and programs make, or after damage of its bytes."""
    tokens = ["", "NA", "nan", "inf", "-inf", "1e300", "1e999", "01", "1_000", '"', '"a', "a,b", "\n", "\r", "é", "\0",
              "9007199254740993", " ", "yes ", "True", "0x1F", "1;2", "2026-11-26", "x" * 200_000]  # fmt: skip
    lines = text.split("\n")
    for _ in range(rng.integers(1, 4)):
        i = int(rng.integers(len(lines)))
        fields = lines[i].split(",")
        k = int(rng.integers(len(fields)))
        change = rng.integers(7)
        if change <= 2:
            fields[k] = tokens[rng.integers(len(tokens))]
        elif change == 3:
            del fields[k]
        elif change == 4:
            fields.insert(k, fields[k])
        elif change == 5:
            lines = lines[: i + 1]
        else:
            lines.insert(i, "")
        if change <= 4:
            lines[i] = ",".join(fields)
    content = "\n".join(lines).encode(["utf-8", "utf-16", "latin-1"][rng.choice(3, p=[0.9, 0.05, 0.05])], "replace")
    return damaged(content, rng) if rng.random() < 0.3 else content


def same(a: Any, b: Any) -> bool:
    """Return True if two trees of arrays and random keys are equal; nnjax's checksums are not used."""

    def content(leaf: Any) -> tuple[Any, ...]:
        leaf = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        return leaf.shape, leaf.dtype, np.asarray(leaf).tobytes()

    trees = [jax.tree.map(content, tree) for tree in (a, b)]
    return bool(trees[0] == trees[1])


# Files ---------------------------------------------------------------------------------------------------------------

ROWS = 12
X = np.arange(3 * ROWS, dtype=np.float32).reshape(ROWS, 3) / 7
Y = np.arange(ROWS, dtype=np.int32) % 2
TREE = {"w": jnp.arange(600.0).reshape(2, 300), "n": jnp.arange(3), "key": jax.random.key(1), "best": None}
TABLE = "a,b,c\n" + "\n".join(f"{i / 7:.3f},{'red' if i % 3 else 'blue'},{'yes' if i % 2 else 'no'}" for i in range(40))


def damage_checkpoint(rng: np.random.Generator, folder: Path) -> None:
    path, step = folder / "tree.safetensors", {"step": 7, "note": "x"}
    checkpoint.save(path, TREE, step)
    path.write_bytes(damaged(path.read_bytes(), rng))
    tree, metadata = checkpoint.load(path, TREE)
    if not same(tree, TREE) or metadata != step:
        raise WrongError("another tree or other metadata were loaded")


def damage_csv(rng: np.random.Generator, folder: Path) -> None:
    path = folder / "table.csv"
    path.write_bytes(damaged_text(TABLE, rng))
    check_dataset(data.load(str(path), target="c"))


def damage_npz(rng: np.random.Generator, folder: Path) -> None:
    path = folder / "table.npz"
    save = np.savez if rng.random() < 0.5 else np.savez_compressed
    save(path, x=X, y=Y)
    path.write_bytes(damaged(path.read_bytes(), rng))
    loaded = data.load(str(path))
    check_dataset(loaded)
    save(path, x=X, y=Y)
    intact = data.load(str(path))
    if not same(loaded[:2], intact[:2]):
        raise WrongError("other numbers were loaded")


def damage_npy(rng: np.random.Generator, folder: Path) -> None:
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    path = folder / f"{'xy'[rng.integers(2)]}.npy"
    path.write_bytes(damaged(path.read_bytes(), rng))
    source = data.open_npy(folder / "x.npy", folder / "y.npy")
    taken = data.take_rows(source, np.arange(2)) if not isinstance(source, data.Source) else source.gather(np.arange(2))
    if any(len(leaf) != 2 for leaf in jax.tree.leaves(taken)):
        raise WrongError("a batch of two rows has another number of rows")


def damage_idx(rng: np.random.Generator, folder: Path) -> None:
    path = folder / "images-idx3-ubyte"
    path.write_bytes(bytes([0, 0, 8, 3]) + np.array([ROWS, 3, 3], ">u4").tobytes() + bytes(range(9)) * ROWS)
    path.write_bytes(damaged(path.read_bytes(), rng))
    read_idx(path)


def damage_run_folder(rng: np.random.Generator, folder: Path) -> None:
    run, new = finished_run()
    names = sorted(path.name for path in run.iterdir() if path.is_file() and path.suffix in (".json", ".safetensors"))
    names = [name for name in names if name not in ("history.json",)]
    path = run / names[rng.integers(len(names))]
    intact = path.read_bytes()
    try:
        path.write_bytes(damaged(intact, rng))
        out = folder / "out.csv"
        predict_command(run, new, out)
        if out.read_bytes() != (run / "expected.csv").read_bytes():
            raise WrongError(f"other predictions after damage of {path.name}")
    finally:
        path.write_bytes(intact)


RUN: list[Path] = []


def finished_run() -> tuple[Path, Path]:
    """Return the folder of a run, trained once, and a file with new rows; the folder has the expected predictions."""
    if not RUN:
        root = Path(tempfile.mkdtemp(prefix="fuzz-"))
        (root / "table.csv").write_text(TABLE)
        (root / "new.csv").write_text("\n".join(line.rpartition(",")[0] for line in TABLE.split("\n")))
        arguments = ["train", str(root / "table.csv"), "--target", "c", "--width", "4", "--depth", "1", "--epochs", "1"]
        with contextlib.redirect_stdout(io.StringIO()):
            argv, sys.argv = (
                sys.argv,
                ["nnjax", *arguments, "--batch-size", "8", "--no-plots", "--out", str(root / "run")],
            )
            with contextlib.suppress(SystemExit):
                nnjax.cli.main()
            sys.argv = argv
            predict_command(root / "run", root / "new.csv", root / "run" / "expected.csv")
        RUN.append(root)
    return RUN[0] / "run", RUN[0] / "new.csv"


def check_dataset(loaded: data.Dataset) -> None:
    """Check what holds for every data set that was accepted."""
    for part in (loaded.train, loaded.test):
        if len(part.x) != len(part.y) or not np.isfinite(part.x).all():
            raise WrongError("rows without a target, or numbers that are not finite")
        known = np.isin(part.y, range(len(loaded.table.classes)))
        if loaded.table.task == "classification" and not known.all():
            raise WrongError("a label is not among the classes")


# Calls ---------------------------------------------------------------------------------------------------------------

LOGITS, LABELS, REALS = jnp.ones((4, 3)), jnp.array([0, 1, 2, 0]), jnp.ones((4, 1))
EXAMPLES = data.Data(jnp.ones((8, 3)), jnp.zeros(8, jnp.int32) + jnp.arange(8) % 2)
MEMBERS = jnp.ones((2, 4, 3)) / 3
PARAMS = {"w": jnp.ones(3)}


def small_run(**changes: Any) -> train.Run:
    arguments = {"net": nn.dense(2), "loss": losses.cross_entropy, "optimizer": optim.sgd(0.1), "batch_size": 4}
    return train.Run(**(arguments | changes))


def update(make: Callable[..., Any], **arguments: Any) -> Any:
    grads = arguments.pop("grads", PARAMS)
    params = arguments.pop("params", PARAMS)
    optimizer = make(**arguments)
    return optimizer.update(grads, optimizer.init(params), params, value=1.0)


def layer(make: Callable[..., nn.Layer], **arguments: Any) -> Any:
    x, key = arguments.pop("x"), arguments.pop("key", jax.random.key(0))
    built = make(**arguments)
    params, state = built.init(key, x)
    return built.apply(params, state, x, train=True, key=key)


def fit(**arguments: Any) -> Any:
    return train.fit(small_run(), progress=False, **arguments)


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "sgd": (lambda **a: update(optim.sgd, **a), {"learning_rate": 0.1, "grads": PARAMS, "params": PARAMS}),
    "momentum": (
        lambda **a: update(optim.momentum, **a),
        {"learning_rate": 0.1, "momentum": 0.9, "accumulator_dtype": None},
    ),
    "adam": (
        lambda **a: update(optim.adam, **a),
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.9, "eps": 1e-8, "mu_dtype": None},
    ),
    "adamw": (
        lambda **a: update(optim.adamw, **a),
        {"learning_rate": 0.1, "weight_decay": 0.1, "mask": None, "grads": PARAMS},
    ),
    "rmsprop": (
        lambda **a: update(optim.rmsprop, **a),
        {"learning_rate": 0.1, "decay": 0.9, "momentum": None, "eps": 1e-8},
    ),
    "params_ema": (lambda **a: update(optim.params_ema, **a), {"decay": 0.9, "params": PARAMS}),
    "dense": (lambda **a: layer(nn.dense, **a), {"features": 2, "x": LOGITS, "key": jax.random.key(0)}),
    "mlp": (lambda **a: layer(nn.mlp, **a), {"hidden": [4], "outputs": 2, "x": LOGITS}),
    "dropout": (lambda **a: layer(nn.dropout, **a), {"rate": 0.5, "x": LOGITS, "key": jax.random.key(0)}),
    "conv": (
        lambda **a: layer(nn.conv, **a),
        {"features": 2, "kernel_size": 3, "strides": 1, "x": jnp.ones((2, 5, 5, 1))},
    ),
    "batch_norm": (lambda **a: layer(nn.batch_norm, **a), {"decay": 0.9, "eps": 1e-5, "x": LOGITS}),
    "max_pool": (lambda **a: layer(nn.max_pool, **a), {"window": 2, "x": jnp.ones((2, 4, 4, 1))}),
    "cross_entropy": (losses.cross_entropy, {"prediction": LOGITS, "target": LABELS}),
    "squared_error": (losses.squared_error, {"prediction": REALS, "target": REALS}),
    "accuracy": (metrics.accuracy, {"prediction": LOGITS, "target": LABELS, "weights": None}),
    "weighted_mean": (metrics.weighted_mean, {"values": jnp.ones(4), "weights": jnp.ones(4)}),
    "r2": (metrics.r2, {"prediction": REALS, "target": REALS, "weights": None}),
    "brier": (metrics.brier, {"prediction": LOGITS, "target": LABELS, "weights": None}),
    "huber": (losses.huber, {"prediction": REALS, "target": REALS, "delta": 1.0}),
    "entropy_decomposition": (uncertainty.entropy_decomposition, {"logits": MEMBERS}),
    "variance_decomposition": (uncertainty.variance_decomposition, {"means": MEMBERS, "variances": None}),
    "vote": (uncertainty.vote, {"logits": MEMBERS}),
    "rejection_curve": (
        uncertainty.rejection_curve,
        {"score": jnp.ones(4), "uncertainty": jnp.ones(4), "weights": None},
    ),
    "as_data": (data.as_data, {"data": EXAMPLES}),
    "validate": (data.validate, {"data": EXAMPLES}),
    "batch_indices": (data.batch_indices, {"key": jax.random.key(0), "step": 1, "n": 8, "batch_size": 4}),
    "split_rows": (data.split_rows, {"y": np.arange(10) % 2, "share": 0.2, "seed": 0, "stratify": True}),
    "Run": (
        small_run,
        {
            "net": nn.dense(2),
            "loss": losses.cross_entropy,
            "optimizer": optim.sgd(0.1),
            "batch_size": 4,
            "metrics": (),
            "micro_batches": 1,
        },
    ),
    "Run.init": (lambda key, data: small_run().init(key, data), {"key": jax.random.key(0), "data": EXAMPLES}),
    "fit": (
        fit,
        {
            "data": EXAMPLES,
            "epochs": 1,
            "key": jax.random.key(0),
            "validation": None,
            "callbacks": (),
            "out": None,
            "save_every": 30.0,
        },
    ),
}

JUNK: list[Any] = [
    None,
    -1,
    0,
    1,
    2.5,
    float("nan"),
    float("inf"),
    1j,
    True,
    "abc",
    b"x",
    [],
    {},
    (),
    [3],
    [1, [2]],
    {"a": 1},
    object(),
    int,
    abs,
    10**30,
    np.float64(0.5),
    np.datetime64("2026-01-01"),
    np.array(["a"]),
    np.array([None]),
    np.ones((2, 0)),
    np.ones(3),
    jnp.ones((2, 3)),
    jnp.arange(3),
    jnp.array([True, False]),
    jnp.float32(np.nan),
    jnp.ones(3, jnp.bfloat16),
    jnp.ones((4, 3), jnp.complex64),
    np.ma.masked_array([1.0, 2.0], [True, False]),
    jax.random.key(0),
    jax.random.split(jax.random.key(0)),
    nn.dense,
    nn.dense(2),
    optim.adam,
    optax.adam(0.1),
    losses.cross_entropy,
    EXAMPLES,
]


def call_wrongly(rng: np.random.Generator, folder: Path) -> None:
    name = list(CALLS)[rng.integers(len(CALLS))]
    function, arguments = CALLS[name]
    arguments = dict(arguments)
    changes = {}
    for _ in range(1 + (rng.random() < 0.2)):
        argument = list(arguments)[rng.integers(len(arguments))]
        changes[argument] = JUNK[rng.integers(len(JUNK))]
    try:
        function(**(arguments | changes))
    except Exception as error:
        error.add_note(f"{name}({', '.join(f'{k}={str(v)[:60]!r}' for k, v in changes.items())})")
        raise


KINDS = {
    "checkpoint": Kind(damage_checkpoint),
    "csv": Kind(damage_csv),
    "npz": Kind(damage_npz),
    "npy": Kind(damage_npy),
    "idx": Kind(damage_idx),
    "run-folder": Kind(damage_run_folder),
    "calls": Kind(call_wrongly, (ValueError, TypeError, OSError)),
}


# Judging -------------------------------------------------------------------------------------------------------------


def raised_by_nnjax(error: Exception) -> bool:
    """Return True if a `raise` in nnjax made the error; opening a file may also raise by itself."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    return frame.filename.startswith(PACKAGE) and (line.startswith("raise") or isinstance(error, OSError))


def judge(kind: Kind, seed: int, limit: int = TIME_LIMIT) -> tuple[str, str]:
    """Run a case and return its outcome, with a sentence about it if it is wrong."""

    def stop(*_: Any) -> None:
        raise Hang

    rng = np.random.default_rng(seed)
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                kind.run(rng, Path(folder))
    except Hang:
        return "wrong", f"no end after {limit} s"
    except Exception as error:
        signal.alarm(0)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        notes = "; ".join(note for note in getattr(error, "__notes__", []) if "\n" not in note)
        text = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}: {str(error)[:200]!r}; {notes}"
        told = isinstance(error, kind.errors) and str(error).strip() and raised_by_nnjax(error)
        return ("told", "") if told else ("wrong", text)
    finally:
        signal.alarm(0)
    return "accepted", ""


def schedule(names: list[str], minutes: float | None, cases: int) -> Iterator[tuple[str, int]]:
    """Yield (kind, number of the case), the kinds in turn, until the time or the cases end."""
    end = None if minutes is None else time.monotonic() + 60 * minutes
    case = 0
    while case < cases if end is None else time.monotonic() < end:
        for name in names:
            yield name, case
        case += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, help="run for this long, instead of a number of cases")
    parser.add_argument("--cases", type=int, default=100, help="number of cases of each kind (default: 100)")
    parser.add_argument("--seed", type=int, help="seed of the first case; each case adds 1 (default: drawn at random)")
    parser.add_argument("--limit", type=int, default=TIME_LIMIT, help="seconds that a case may take (default: 60)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind; may be repeated")
    arguments = parser.parse_args()

    names = arguments.kind or list(KINDS)
    first = secrets.randbelow(10**9) if arguments.seed is None else arguments.seed
    print(f"seed {first}", flush=True)
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    for name, case in schedule(names, arguments.minutes, arguments.cases):
        seed = first + case
        outcome, text = judge(KINDS[name], seed, arguments.limit)
        counts[name][outcome] += 1
        if outcome == "wrong":
            print(f"wrong: {text}\n  python -m tests.fuzz --kind {name} --seed {seed} --cases 1", flush=True)
    print(f"{'kind':12}{'tried':>8}{'told':>8}{'accepted':>10}{'wrong':>8}")
    for name, count in counts.items():
        print(f"{name:12}{count.total():8}{count['told']:8}{count['accepted']:10}{count['wrong']:8}")
    return int(any(count["wrong"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
