"""Labels are checked by what they index, whichever loss they meet: a table of losses × labels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax import data, losses, nn, optim, train

CLASSES, ROWS = 10, 40
RIGHT = np.arange(ROWS, dtype=np.int32) % CLASSES
LABELS = {
    "right": RIGHT,
    "1 … n": RIGHT + 1,
    "-1": np.where(np.arange(ROWS) == 3, -1, RIGHT),
    "-2": np.where(np.arange(ROWS) == 3, -2, RIGHT),
    "255": np.where(np.arange(ROWS) == 3, 255, RIGHT),
    "-100": np.where(np.arange(ROWS) == 3, -100, RIGHT),
    "n … 2n": RIGHT + CLASSES,
}


def taken(p, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(p), y[:, None], 1)[:, 0]  # NaN beyond, from the end if negative


def indexed(p, y):
    return -jax.nn.log_softmax(p)[jnp.arange(len(y)), y]  # JAX clips an index


def one_hot(p, y):
    return -(jax.nn.one_hot(y, p.shape[-1]) * jax.nn.log_softmax(p)).sum(-1)  # 0 for an unknown label


def of_probabilities(p, y):
    return -jnp.log(p)[jnp.arange(len(y)), y]


def ignoring(p, y):
    return jnp.where(y == -1, 0.0, losses.cross_entropy(p, jnp.where(y == -1, 0, y)))


def ignoring_negative(p, y):
    return jnp.where(y < 0, 0.0, losses.cross_entropy(p, jnp.maximum(y, 0)))


ALL = {"1 … n", "-1", "-2", "255", "-100", "n … 2n"}
TABLE = {  # loss, the labels that are refused
    "cross_entropy": (losses.cross_entropy, ALL),
    "lambda": (lambda p, y: losses.cross_entropy(p, y), ALL),  # noqa: PLW0108
    "partial": (functools.partial(losses.cross_entropy, label_smoothing=0.1), ALL),
    "optax": (optax.softmax_cross_entropy_with_integer_labels, ALL),
    "optax, hinge": (optax.losses.multiclass_hinge_loss, ALL),
    "optax, poly": (lambda p, y: optax.losses.poly_loss_cross_entropy(p, jax.nn.one_hot(y, CLASSES)), ALL),
    "taken": (taken, ALL),
    "indexed": (indexed, ALL),
    "one_hot": (one_hot, ALL),
    "of probabilities": (of_probabilities, ALL),
    "own loss that ignores -1": (ignoring, ALL - {"-1"}),
    "own loss that ignores negative labels": (ignoring_negative, ALL - {"-1", "-2", "-100"}),
    "cross_entropy that ignores -1": (functools.partial(losses.cross_entropy, ignore_index=-1), ALL - {"-1"}),
    "cross_entropy that ignores -100": (functools.partial(losses.cross_entropy, ignore_index=-100), ALL - {"-100"}),
    "cross_entropy that ignores 0": (functools.partial(losses.cross_entropy, ignore_index=0), ALL),
    "focal that ignores 255": (functools.partial(losses.focal, ignore_index=255), ALL - {"255"}),
    "counts": (lambda p, y: jnp.exp(p[:, 0]) - y * p[:, 0], set()),
    "numbers": (lambda p, y: jnp.square(p[:, 0] - y), set()),
    "y is not read": (lambda p, y: jnp.square(p).sum(-1), set()),
}


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as users of optax have
        yield


def logits(outputs):
    return lambda x: jnp.zeros((len(x), outputs))


@pytest.mark.parametrize("name", TABLE)
def test_unknown_labels_are_refused_and_known_ones_pass(name):
    loss, refused = TABLE[name]
    for labels, y in LABELS.items():
        examples = data.Data(np.ones((ROWS, 3), np.float32), y.astype(np.int32))
        if labels not in refused:
            assert data.check_labels(examples, loss, logits(CLASSES)) is examples
            continue
        with pytest.raises(ValueError, match=r"^data\.y: label .* in row .* outside 0 … 9; the network has 10 outputs"):
            data.check_labels(examples, loss, logits(CLASSES))


@pytest.mark.parametrize(
    ("y", "outputs", "says"),
    [
        (RIGHT + 1, 10, "label 10 in row 9 .* the labels are 1 … 10; use y - 1"),
        (np.where(RIGHT == 4, -1, RIGHT), 10, "label -1 in row 4 .* the labels are -1 … 9; number the classes from 0"),
        (RIGHT - 1, 10, "label -1 in row 0 .* the labels are -1 … 8; number the classes from 0"),
        (
            np.where(np.arange(ROWS) == 3, -1, RIGHT),
            10,
            "the labels are -1 … 9; leave out the rows without a class, or pass ignore_index=-1 to",
        ),
        (RIGHT, 9, "label 9 in row 9 .* give the network 10 outputs"),
        (RIGHT % 2 * 255, 2, "label 255 in row 1 .* the labels are 0 … 255; number the classes from 0, as np.unique"),
        (RIGHT % 2, 1, "label 1 in row 1 is outside 0 … 0; the network has 1 output and"),
        (RIGHT % 3 * 7, 2, "number the classes from 0 and give the network 3 outputs"),
    ],
)
def test_the_message_says_what_to_do(y, outputs, says):
    with pytest.raises(ValueError, match=says):
        data.check_labels(data.Data(np.ones((ROWS, 3)), y.astype(np.int32)), losses.cross_entropy, logits(outputs))


def _heads(p, t):
    first, second = (
        losses.cross_entropy(p["a"], t["a"]),
        optax.softmax_cross_entropy_with_integer_labels(p["b"], t["b"]),
    )
    return first + second + losses.squared_error(p["c"], t["c"])


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (RIGHT % 3, RIGHT % 7, None),
        (RIGHT % 3 + 1, RIGHT % 7, r"data\.y/a: label 3 in row 2 is outside 0 … 2.* use y - 1"),
        (RIGHT % 3, RIGHT % 7 + 1, r"data\.y/b: label 7 in row 6 is outside 0 … 6.* use y - 1"),
        (RIGHT % 3, np.where(RIGHT == 0, -1, RIGHT % 7), r"data\.y/b: label -1 in row 0 is outside 0 … 6"),
    ],
)
def test_each_head_of_a_dict_has_its_classes(a, b, says):
    examples = data.Data(np.ones((ROWS, 3)), {"a": a, "b": b, "c": np.ones((ROWS, 1), np.float32)})
    net = lambda x: {name: jnp.zeros((len(x), size)) for name, size in (("a", 3), ("b", 7), ("c", 1))}  # noqa: E731
    if says is None:
        assert data.check_labels(examples, _heads, net) is examples
    else:
        with pytest.raises(ValueError, match=says):
            data.check_labels(examples, _heads, net)


def test_labels_of_positions():
    y = np.zeros((6, 12), np.int32)
    net = lambda x: jnp.zeros((6, 12, 3))  # noqa: E731
    data.check_labels(data.Data(y, y), losses.cross_entropy, net)
    y[3, 2] = 3
    with pytest.raises(ValueError, match="label 3 in row 3 is outside 0 … 2"):
        data.check_labels(data.Data(y, y), losses.cross_entropy, net)


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32"])
@pytest.mark.parametrize("first", ["padding", "counts"])
def test_labels_of_positions_with_weights(dtype, first):
    """Weights that are all 0 in the first row do not hide labels from the check."""
    y, weights = np.zeros((6, 12), np.int32), np.ones((6, 12), dtype)
    weights[0] = first == "counts"
    net = lambda x: jnp.zeros((6, 12, 3))  # noqa: E731
    data.check_labels(data.Data(y, (y, weights)), losses.cross_entropy, net)
    y[3, 2] = 3
    with pytest.raises(ValueError, match=r"data\.y/0: label 3 in row 3 is outside 0 … 2"):
        data.check_labels(data.Data(y, (y, weights)), losses.cross_entropy, net)


@pytest.mark.parametrize(
    ("loss", "y", "outputs"),
    [
        (losses.cross_entropy, np.array([0, 1, 9]), 10),
        (losses.cross_entropy, (np.array([0, 1, 9]), np.array([7, 99, 12])), 10),  # integers that weigh the labels
        (losses.squared_error, np.array([[7.5], [-1.0], [99.0]]), 1),
        (losses.squared_error, np.array([[5], [9]]), 1),  # integers to be regressed
        (lambda p, y: losses.binary_cross_entropy(p[:, 0], y), np.array([0, 1]), 1),
        (lambda p, y: losses.squared_error(p, y["a"][:, None]), {"a": np.array([5, -1])}, 1),
        (losses.squared_error, np.array([5, 7]), 4),  # the run raises the error of the shapes
    ],
)
def test_other_targets_pass(loss, y, outputs):
    data.check_labels(data.Data(np.ones((len(jax.tree.leaves(y)[0]), 2)), y), loss, logits(outputs))


def test_fit_checks_the_labels_of_every_loss_even_in_modes_that_hunt_nan():
    x = np.ones((ROWS, 3), np.float32)
    run = train.Run(nn.dense(CLASSES), TABLE["lambda"][0], optim.sgd(0.1), batch_size=8)
    with jax.debug_nans(True), pytest.raises(ValueError, match=r"label 10 in row 9 .* use y - 1"):
        train.fit(run, (x, RIGHT + 1), epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"validation\.y: label -1 in row 0"):
        train.fit(run, (x, RIGHT), validation=(x, RIGHT - 1), epochs=1, progress=False)
    source = data.source(x, RIGHT + 1)
    with pytest.raises(ValueError, match=r"label 10 in row \d+ is outside 0 … 9"):
        train.fit(run, source, epochs=1, progress=False)


BITS = np.arange(ROWS)[:, None] % 2
THREE = np.concatenate([BITS, BITS, BITS], 1)


@pytest.mark.parametrize("source", [False, True])
@pytest.mark.parametrize(
    ("loss", "y", "says"),
    [
        (losses.binary_cross_entropy, 2 * BITS - 1, r"-1 in row 0 .* accepts 0 and 1; use np\.where\(y == 1, 1, 0\)"),
        (losses.binary_cross_entropy, BITS + 1, r"2 in row 1 .* use np\.where\(y == 2, 1, 0\)"),
        (losses.binary_cross_entropy, BITS + 1.0, r"2 in row 1 .* use np\.where\(y == 2, 1, 0\)"),
        (losses.binary_cross_entropy, 0 * BITS + 2, "2 in row 0 .* correct these targets"),
        (losses.binary_cross_entropy, np.where(np.arange(3) == 2, 2 * THREE, THREE), "2 in row 1 .* accepts 0 and 1"),
        (lambda p, y: losses.binary_cross_entropy(p[:, 0], y), BITS[:, 0] + 1, r"2 in row 1 .* use np\.where"),
        (losses.hinge, BITS, r"0 in row 0 .* hinge accepts -1 and 1; use np\.where\(y == 1, 1, -1\)"),
        (losses.hinge, BITS == 1, r"0 in row 0 .* hinge accepts -1 and 1; use np\.where\(y == 1, 1, -1\)"),
        (losses.hinge, np.where(np.arange(ROWS)[:, None] == 30, 0.0, 1.0), "0 in row 30"),
        (losses.poisson_nll, -BITS, "-1 in row 1 .* poisson_nll accepts 0, 1 and 2"),
        (lambda p, y: jnp.square(p - jnp.log(y)).sum(-1), BITS - 1.0, "-1 in row 0"),
    ],
)
def test_targets_without_a_loss_are_refused_with_their_row(loss, y, says, source):
    x, y = np.ones((ROWS, 3), np.float32), np.asarray(y, np.float32 if np.asarray(y).dtype.kind == "f" else None)
    run = train.Run(nn.dense(THREE.shape[1] if y.shape[1:] == (3,) else 1), loss, optim.sgd(0.1), batch_size=ROWS)
    with jax.debug_nans(True), pytest.raises(ValueError, match=rf"^data\.y: {says}"):
        train.fit(run, data.source(x, y) if source else (x, y), epochs=1, progress=False)


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (losses.binary_cross_entropy, np.linspace(0, 1, ROWS)[:, None]),
        (losses.binary_cross_entropy, np.float32(1 + 1e-6) * BITS.astype(np.float32)),  # rounding
        (losses.hinge, 2.0 * BITS - 1),
        (losses.poisson_nll, BITS + 0.5),
        (lambda p, y: -jnp.log(p[:, 0] - 10) + y[:, 0], BITS - 1.0),  # the prediction is at fault
    ],
)
def test_targets_with_a_loss_are_accepted(loss, y):
    run = train.Run(nn.dense(1), loss, optim.sgd(0.0), batch_size=8)
    train.fit(run, (np.ones((ROWS, 3), np.float32), y.astype(np.float32)), steps=0, progress=False)


def test_the_head_whose_target_has_no_loss_is_named():
    net = nn.branch(nn.dense(1), nn.dense(3), merge=lambda ys: dict(zip("ab", ys, strict=True)))
    loss = lambda p, y: losses.hinge(p["a"], y["a"]) + losses.cross_entropy(p["b"], y["b"])  # noqa: E731
    run = train.Run(net, loss, optim.sgd(0.1), batch_size=8)
    with pytest.raises(ValueError, match=r"^data\.y/a: 0 in row 0"):
        train.fit(run, (np.ones((ROWS, 3), np.float32), {"a": BITS, "b": RIGHT % 3}), epochs=1, progress=False)
