"""Plots: the axes show the data that was passed."""

import subprocess
import sys
import zlib

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from nnjax import metrics, plot, uncertainty

HISTORY = [
    {"epoch": 1, "step": 10, "loss": 2.0},
    {"epoch": 2, "step": 20, "loss": 1.0, "validation_loss": 1.5, "validation_accuracy": 0.5},
    {"epoch": 3, "step": 30, "loss": 0.5, "validation_loss": 1.2, "validation_accuracy": 0.8},
    {"epoch": 4, "step": 40, "loss": 0.4, "validation_loss": 1.3, "validation_accuracy": 0.7},
]


def lines(axes):
    """Return the points of each line by its label."""
    return {line.get_label(): np.transpose(line.get_data()).tolist() for line in axes.lines}


def logits_of(probabilities):
    return np.log(np.asarray(probabilities, np.float32))


def is_png(content):
    """Return whether the bytes are a PNG file; check the checksum of every chunk."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    place, names = 8, []
    while place < len(content):
        length = int.from_bytes(content[place : place + 4])
        chunk = content[place + 4 : place + 8 + length]
        assert zlib.crc32(chunk) == int.from_bytes(content[place + 8 + length : place + 12 + length])
        names.append(chunk[:4])
        place += 12 + length
    return names[0] == b"IHDR" and names[-1] == b"IEND"


def test_curves_show_loss_validation_and_score():
    loss, score = plot.curves(HISTORY).axes
    assert lines(loss) == {
        "training, mean of the epoch": [[1, 2.0], [2, 1.0], [3, 0.5], [4, 0.4]],
        "validation": [[2, 1.5], [3, 1.2], [4, 1.3]],
    }
    assert lines(score) == {"validation": [[2, 0.5], [3, 0.8], [4, 0.7]]}
    assert score.get_title() == "best 0.8000 in epoch 3"
    assert score.get_ylabel() == "accuracy"
    assert loss.get_xlabel() == score.get_xlabel() == "epoch"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training, mean of the epoch", "validation"]
    assert loss.lines[1].get_color() == score.lines[0].get_color() != loss.lines[0].get_color()


def test_curves_without_validation_are_one_picture():
    (axes,) = plot.curves([{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.9}]).axes
    assert lines(axes) == {"training, mean of the epoch": [[1, 1.0], [2, 0.9]]}


def test_curves_of_a_regression_show_r2():
    history = [{"epoch": 1, "loss": 1.0, "validation_r2": -0.2}, {"epoch": 2, "loss": 1.0, "validation_r2": -0.1}]
    _, score = plot.curves(history).axes
    assert score.get_ylabel() == "R²"
    assert score.get_title() == "best -0.1000 in epoch 2"


@pytest.mark.parametrize(("last", "scale"), [(0.4, "linear"), (0.004, "log"), (0.0, "linear"), (np.nan, "linear")])
def test_curves_are_logarithmic_over_powers_of_ten(last, scale):
    axes = plot.curves([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": last}]).axes[0]
    assert axes.get_yscale() == scale


def test_curves_of_a_run_that_diverged():
    bad = {"loss": np.nan, "validation_accuracy": np.nan}
    _, score = plot.curves([{"epoch": 1, **bad}, *HISTORY[1:]]).axes
    assert score.get_title() == "best 0.8000 in epoch 3"
    figure = plot.curves([{"epoch": 1, **bad}, {"epoch": 2, **bad}])
    assert figure.axes[1].get_title() == ""
    assert is_png(plot.png(figure))


def test_confusion_counts_true_by_predicted():
    labels = np.array([0, 0, 0, 0, 1, 2, 2])
    taken = [0, 0, 0, 2, 1, 0, 2]
    axes = plot.confusion(np.eye(3, dtype=np.float32)[taken], labels, ["a", "b", "c"]).axes[0]
    shares = np.square(np.asarray(axes.images[0].get_array()))
    np.testing.assert_allclose(shares, [[0.75, 0, 0.25], [0, 1, 0], [0.5, 0, 0.5]])
    numbers = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert numbers == {((0, 0), "3"), ((2, 0), "1"), ((1, 1), "1"), ((0, 2), "1"), ((2, 2), "1")}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [text.get_text() for text in ticks] == ["a", "b", "c"]
    dark = {text.get_position(): to_rgb(text.get_color()) for text in axes.texts}
    assert dark[0, 0] == to_rgb("white")
    assert dark[2, 0] == to_rgb("black")


def test_confusion_of_a_class_without_examples():
    figure = plot.confusion(np.eye(2, dtype=np.float32), np.array([0, 0]), ["a", "b"])
    np.testing.assert_array_equal(np.square(figure.axes[0].images[0].get_array()).round(3), [[0.5, 0.5], [0, 0]])


def test_confusion_of_many_classes_has_no_numbers():
    figure = plot.confusion(np.eye(30, dtype=np.float32), np.arange(30), [str(i) for i in range(30)])
    assert not figure.axes[0].texts
    assert figure.get_figwidth() < 13


def test_reliability_shows_accuracy_over_confidence_and_how_many():
    probabilities = [[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2
    labels = np.array([0, 0, 0, 1, 1, 0])  # 3 of 4 at 0.9, 1 of 2 at 0.6
    above, below = plot.reliability(logits_of(probabilities), labels, bins=10).axes
    error = float(metrics.expected_calibration_error(logits_of(probabilities), labels, bins=10))
    shown = lines(above)
    np.testing.assert_allclose(shown[f"test data, ECE {error:.4f}"], [[0.6, 0.5], [0.9, 0.75]], atol=1e-6)
    np.testing.assert_allclose(error, (4 * 0.15 + 2 * 0.1) / 6, atol=1e-6)
    assert shown["perfectly calibrated"] == [[0, 0], [1, 1]]
    heights = np.array([bar.get_height() for bar in below.patches])
    np.testing.assert_allclose(np.sort(heights)[-2:], [2, 4], atol=1e-5)
    assert heights.sum().round(4) == 6
    assert len(heights) == 10


def test_predictions_are_plotted_against_the_targets():
    target, prediction = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])
    (axes,) = plot.predictions(prediction, target, "length [cm]").axes
    diagonal, points = axes.lines
    assert np.transpose(points.get_data()).tolist() == [[1, 1.5], [2, 2], [4, 3]]
    assert np.transpose(diagonal.get_data()).tolist() == [[1, 1], [4, 4]]
    assert axes.get_xlabel() == "length [cm], true"
    assert axes.get_ylabel() == "length [cm], predicted"


def test_ensemble_size_shows_means_and_deviations():
    table = uncertainty.SizeCurve(*np.array([[1, 2, 3], [0.8, 0.9, 0.95], [0.1, 0.05, 0], [2, 1.5, 1], [0.5, 0.2, 0]]))
    figure = plot.ensemble_size(table._replace(size=np.array([1, 2, 3])))
    for axes, mean, sd in zip(figure.axes, (table.accuracy, table.nll), (table.accuracy_sd, table.nll_sd), strict=True):
        ((points, _, (bars,)),) = axes.containers
        np.testing.assert_array_equal(np.transpose(points.get_data()), np.transpose([table.size, mean]))
        np.testing.assert_allclose([bar[:, 1] for bar in bars.get_segments()], np.transpose([mean - sd, mean + sd]))
        assert lines(axes)["one member, mean"] == [[0, mean[0]], [1, mean[0]]]
        assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "members")
        assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "3"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy", "negative log-likelihood"]
    assert is_png(plot.png(figure))


def test_ensemble_size_without_single_members_has_no_line_for_them():
    table = uncertainty.SizeCurve(np.array([2, 4]), *np.ones((4, 2)))
    assert "one member, mean" not in lines(plot.ensemble_size(table).axes[0])


def test_rejection_starts_at_the_accuracy_of_all():
    (axes,) = plot.rejection(np.array([0, 0.5]), np.array([0.7, 1.0])).axes
    assert lines(axes) == {"dropped at random": [[0, 0.7], [1, 0.7]], "most uncertain first": [[0, 0.7], [0.5, 1.0]]}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("share dropped", "accuracy of the rest")


def test_spread_shows_members_their_mean_and_the_ensemble():
    (axes,) = plot.spread(np.array([0.7, 0.9, 0.8]), 0.95, "R²").axes
    shown = lines(axes)
    assert np.transpose(shown["members"])[0].tolist() == [0.7, 0.9, 0.8]
    assert np.transpose(shown["their mean, 0.8000"])[0].round(6).tolist() == [0.8, 0.8]
    assert np.transpose(shown["averaged prediction, 0.9500"])[0].tolist() == [0.95, 0.95]
    assert sum(bar.get_height() for bar in axes.patches) == 3
    assert axes.get_xlabel() == "R²"


@pytest.mark.parametrize(("scores", "counted"), [([0.9, 0.9], 2), ([0.9], 1), ([0.9, np.nan, 0.8], 2), ([np.nan], 0)])
def test_spread_of_equal_single_or_diverged_members(scores, counted):
    figure = plot.spread(np.array(scores), 0.9)
    (axes,) = figure.axes
    assert sum(bar.get_height() for bar in axes.patches) == counted
    assert ("their mean, nan" in lines(axes)) == bool(np.isnan(scores).any())
    assert is_png(plot.png(figure))


def test_dollars_in_names_do_not_start_a_formula():
    r"""Matplotlib parses text between two dollar signs as TeX, and fails on `\x`."""
    figure = plot.confusion(np.eye(2, dtype=np.float32), np.arange(2), ["$5 to \\x$9", "more"])
    assert is_png(plot.png(figure))
    assert is_png(plot.png(plot.predictions(np.ones(2), np.arange(2.0), "pay $ or \\x$")))


@pytest.mark.parametrize("side", [(4.5, 3.2), (9, 3.2)])
def test_png_is_a_complete_file_of_the_size_of_the_figure(side):
    history = HISTORY if side[0] == 9 else [{"epoch": 1, "loss": 1.0}]
    content = plot.png(plot.curves(history))
    assert is_png(content)
    size = [int.from_bytes(content[16:20]), int.from_bytes(content[20:24])]
    assert size == [round(150 * inches) for inches in side]


def test_no_global_state_changes():
    program = (
        "import sys; from nnjax import plot; assert 'matplotlib' not in sys.modules; "
        "plot.png(plot.curves([{'epoch': 1, 'loss': 1.0}])); assert 'matplotlib' in sys.modules; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
