"""Histories as rows, CSV files and TensorBoard events."""

import jax.numpy as jnp
import numpy as np
import pandas
import pytest

from nnjax import interop, losses, metrics, nn, optim, train

X, Y = jnp.linspace(-1, 1, 24).reshape(12, 2), jnp.arange(12) % 3


def class_shares(prediction, target, weights=None):
    return jnp.stack([(prediction.argmax(-1) == label).astype(jnp.float32).mean() for label in range(3)])


RUN = train.Run(
    nn.dense(3), losses.cross_entropy, optim.sgd(0.1), batch_size=4, metrics=(metrics.accuracy, class_shares)
)


def fit(epochs=3, **settings):
    return train.fit(RUN, (X, Y), validation=(X, Y), epochs=epochs, progress=False, **settings)


def test_rows_of_a_single_run():
    history = fit().history
    frame = pandas.DataFrame(interop.history_rows(history))
    assert frame.step.tolist() == [3, 6, 9]
    assert frame.loss.tolist() == [record["loss"] for record in history]
    shares = frame[[f"validation_class_shares/{label}" for label in range(3)]].to_numpy()
    np.testing.assert_array_equal(shares, np.stack([record["validation_class_shares"] for record in history]))
    assert "member" not in frame


def test_rows_of_an_ensemble_are_long():
    history = fit(members=2).history
    frame = pandas.DataFrame(interop.history_rows(history))
    assert frame.member.tolist() == [0, 1] * 3
    table = frame.pivot(index="epoch", columns="member", values="validation_accuracy")
    np.testing.assert_array_equal(table, np.stack([record["validation_accuracy"] for record in history]))
    shares = frame[frame.member == 1]["validation_class_shares/2"]
    assert shares.tolist() == [record["validation_class_shares"][1, 2] for record in history]


def test_rows_of_an_empty_history():
    assert interop.history_rows([]) == []


@pytest.mark.parametrize("members", [None, 2])
def test_csv_log_has_the_history(members, tmp_path):
    result = fit(members=members, callbacks=[interop.csv_log(tmp_path / "log.csv")])
    frame, expected = pandas.read_csv(tmp_path / "log.csv"), pandas.DataFrame(interop.history_rows(result.history))
    assert len(frame) == 3 * (members or 1)
    pandas.testing.assert_frame_equal(frame, expected[frame.columns], rtol=1e-6, check_dtype=False)


def test_csv_log_of_a_resumed_run_continues_the_file(tmp_path):
    log, out = interop.csv_log(tmp_path / "log.csv"), tmp_path / "run"
    fit(epochs=2, callbacks=[log], out=out)
    fit(epochs=4, callbacks=[log], out=out, resume=True)
    assert pandas.read_csv(tmp_path / "log.csv").step.tolist() == [3, 6, 9, 12]
    fit(epochs=1, callbacks=[log])  # a fresh run starts the file again
    assert pandas.read_csv(tmp_path / "log.csv").step.tolist() == [3]


@pytest.mark.parametrize("members", [None, 2])
def test_tensorboard_log_has_the_history(members, tmp_path):
    tensorboard = pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        result = fit(members=members, callbacks=[interop.tensorboard_log(writer)])
    content, values = next(tmp_path.glob("*tfevents*")).read_bytes(), {}
    while content:  # length, checksum, event, checksum
        size = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + size])
        values |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        content = content[16 + size :]
    for record in result.history:
        for name in ("loss", "validation_accuracy"):
            for member in range(members or 1):
                tag = name if members is None else f"{name}/{member}"
                assert values[tag, record["step"]] == pytest.approx(np.ravel(record[name])[member], rel=1e-6)


def test_tensorboard_log_of_a_folder_is_refused():
    with pytest.raises(TypeError, match="tensorboard_log: writer must be a SummaryWriter, got 'events'"):
        interop.tensorboard_log("events")


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "step,loss\nx,2\n", "step,loss\n\n,3\n"])
def test_a_file_that_is_no_log_is_not_overwritten(tmp_path, text):
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.csv exists and is not a log of fit"):
        fit(epochs=1, callbacks=[interop.csv_log(path)])
    assert path.read_text() == text
