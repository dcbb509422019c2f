"""Plots: the axes show the data that was passed."""

import re
import subprocess
import sys
import zlib

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from nnjax import metrics, plot, uncertainty
from nnjax.plot import _style as style
from nnjax.plot._curves import TRAINING
from nnjax.plot._trials import explained

NAN = float("nan")

HISTORY = [
    {"epoch": 1, "step": 10, "loss": 2.0},
    {"epoch": 2, "step": 20, "loss": 1.0, "validation_loss": 1.5, "validation_accuracy": 0.5},
    {"epoch": 3, "step": 30, "loss": 0.5, "validation_loss": 1.2, "validation_accuracy": 0.8},
    {"epoch": 4, "step": 40, "loss": 0.4, "validation_loss": 1.3, "validation_accuracy": 0.7},
]


def lines(axes):
    """Return the points of each line by its label."""
    return {line.get_label(): np.transpose(line.get_data()).tolist() for line in axes.lines}


def title(figure):
    """Return the headline and the second line of a picture."""
    return [" ".join(text.get_text().split()) for text in figure.texts[:2]]


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
    figure = plot.curves(HISTORY, context="digits · test accuracy 0.7")
    loss, score = figure.axes
    assert title(figure) == ["Learning curves", "digits · test accuracy 0.7"]
    assert lines(loss) == {
        f"training: {TRAINING}": [[1, 2.0], [2, 1.0], [3, 0.5], [4, 0.4]],
        "validation": [[2, 1.5], [3, 1.2], [4, 1.3]],
    }
    kept = "kept: epoch 4, 0.7000"  # not the best one, which is lost without early stopping
    assert lines(score) == {"validation": [[2, 0.5], [3, 0.8], [4, 0.7]], kept: [[4, 0.7]]}
    assert score.get_ylabel() == "validation accuracy"
    assert score.get_xlabel() == "epoch"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [f"training: {TRAINING}", "validation"]
    assert loss.lines[1].get_color() == score.lines[0].get_color() != loss.lines[0].get_color()


def test_curves_mark_the_network_that_early_stopping_kept():
    loss, score = plot.curves(HISTORY, best_epoch=3).axes
    assert lines(score)["kept: epoch 3, 0.8000"] == [[3, 0.8]]
    assert [3, 3] in [np.asarray(line.get_xdata()).tolist() for line in loss.lines]


@pytest.mark.parametrize("top", [0.99, 1.0])
def test_an_axis_of_shares_ends_at_one(top):
    history = [{"epoch": i, "loss": 1.0, "validation_accuracy": value} for i, value in enumerate([0.5, top])]
    low, high = plot.curves(history).axes[1].get_ylim()
    assert 0 <= low < 0.5 < top <= high <= 1


def test_curves_of_an_ensemble_are_a_median_and_a_band_with_the_members_behind():
    values = np.array([[1.0, 2, 3, 4, 100], [0.5, 0.6, 0.7, np.nan, np.nan]])
    history = [{"epoch": i + 1, "step": i, "loss": row, "validation_r2": row} for i, row in enumerate(values)]
    figure = plot.curves(history, best_epoch=[1, 1, 2, 2, 1])
    assert title(figure)[0] == "Learning curves: the median of 5 networks and a band of 80 % of them"
    loss, score = figure.axes
    shown = lines(loss)
    assert shown[f"training: {TRAINING}"] == [[1, 3], [2, 0.6]]
    assert shown["_member 0"] == [[1, 1.0], [2, 0.5]]
    (band,) = loss.collections
    corners = band.get_paths()[0].vertices
    np.testing.assert_allclose([corners[:, 1].min(), corners[:, 1].max()], [0.52, np.quantile(values[0], 0.9)])
    marked = next(points for label, points in lines(score).items() if label.startswith("kept networks, mean 25.92"))
    np.testing.assert_allclose(marked, [[1, 1], [1, 2], [2, 0.7], [2, np.nan], [1, 100]])


def test_few_members_have_no_band():
    history = [{"epoch": i, "loss": np.array([1.0, 2.0])} for i in (1, 2)]
    (axes,) = plot.curves(history).axes
    assert not axes.collections
    assert lines(axes)[f"training: {TRAINING}"] == [[1, 1.5], [2, 1.5]]


def test_the_legend_says_how_the_training_loss_is_measured():
    (axes,) = plot.curves([{"epoch": 1, "loss": 1.0}], training="with dropout 0.3").axes
    assert "training: with dropout 0.3" in lines(axes)


def test_curves_without_validation_are_one_picture():
    (axes,) = plot.curves([{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.9}]).axes
    assert lines(axes) == {f"training: {TRAINING}": [[1, 1.0], [2, 0.9]]}


def test_curves_of_a_regression_show_r2():
    history = [{"epoch": 1, "loss": 1.0, "validation_r2": -0.2}, {"epoch": 2, "loss": 1.0, "validation_r2": -0.1}]
    _, score = plot.curves(history).axes
    assert score.get_ylabel() == "validation R²"
    assert "kept: epoch 2, -0.1000" in lines(score)


@pytest.mark.parametrize(("last", "scale"), [(0.4, "linear"), (0.004, "log"), (0.0, "linear"), (np.nan, "linear")])
def test_curves_are_logarithmic_over_powers_of_ten(last, scale):
    axes = plot.curves([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": last}]).axes[0]
    assert axes.get_yscale() == scale


def test_curves_of_a_run_that_diverged():
    bad = {"loss": np.nan, "validation_accuracy": np.nan}
    _, score = plot.curves([{"epoch": 1, **bad}, *HISTORY[1:]]).axes
    assert "kept: epoch 4, 0.7000" in lines(score)
    figure = plot.curves([{"epoch": 1, **bad}, {"epoch": 2, **bad}])
    assert list(lines(figure.axes[1])) == ["validation"]
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
    ((points, _, (bars,)),) = above.containers
    np.testing.assert_allclose(np.transpose(points.get_data()), [[0.6, 0.5], [0.9, 0.75]], atol=1e-6)
    np.testing.assert_allclose(error, (4 * 0.15 + 2 * 0.1) / 6, atol=1e-6)
    assert above.containers[0].get_label() == f"test rows, 95 % intervals; calibration error {error:.4f}"
    # Wilson's intervals of 1 of 2 and of 3 of 4, from the table of another program
    np.testing.assert_allclose(
        [bar[:, 1] for bar in bars.get_segments()], [[0.0945, 0.9055], [0.3006, 0.9544]], atol=1e-4
    )
    assert lines(above)["calibrated"] == [[0, 0], [1, 1]]
    heights = np.array([bar.get_height() for bar in below.patches])
    assert sorted(heights) == [0] * 8 + [2, 4]
    assert [text.get_text() for text in below.texts] == ["2", "4"]
    assert (above.get_ylim(), above.get_ylabel(), below.get_ylabel()) == ((0, 1), "accuracy", "examples")


def test_predictions_are_plotted_against_the_targets():
    target, prediction = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])
    (axes,) = plot.predictions(prediction, target, "length [cm]").axes
    diagonal, points = axes.lines
    assert np.transpose(points.get_data()).tolist() == [[1, 1.5], [2, 2], [4, 3]]
    assert np.transpose(diagonal.get_data()).tolist() == [[1, 1], [4, 4]]
    assert not axes.containers
    assert axes.get_xlabel() == "length [cm], true"
    assert axes.get_ylabel() == "length [cm], predicted"


def test_predictions_of_an_ensemble_have_bars():
    target, prediction, sd = np.array([1.0, 2.0]), np.array([1.5, 2.0]), np.array([0.25, 0.5])
    (axes,) = plot.predictions(prediction, target, "length", sd=sd).axes
    ((_, _, (bars,)),) = axes.containers
    np.testing.assert_allclose([bar[:, 1] for bar in bars.get_segments()], [[1.25, 1.75], [1.5, 2.5]])


def test_residuals_have_a_mean_and_an_interval_for_each_group():
    rng = np.random.default_rng(0)
    prediction = np.arange(80.0)
    residual = rng.normal(size=80) + np.where(prediction < 40, 5, 0)
    axes, side = plot.residuals(prediction, prediction + residual, "length [cm]").axes
    assert lines(axes)["test rows"][3] == pytest.approx([3, residual[3]])
    ((points, _, (bars,)),) = axes.containers
    np.testing.assert_allclose(points.get_xdata(), np.arange(80).reshape(10, 8).mean(1))
    np.testing.assert_allclose(points.get_ydata(), residual.reshape(10, 8).mean(1))
    ends = np.array([bar[:, 1] for bar in bars.get_segments()])
    np.testing.assert_allclose(
        np.ptp(ends, axis=1) / 2, 2.3646 * residual.reshape(10, 8).std(1, ddof=1) / 8**0.5, rtol=1e-4
    )
    assert (ends[:5, 0] > 0).all()  # the first half is too low on average
    assert sum(bar.get_width() for bar in side.patches) == 80
    assert axes.get_xlabel() == "length [cm], predicted"


@pytest.mark.parametrize("n", [1, 2, 15])
def test_residuals_of_few_rows_have_no_groups(n):
    figure = plot.residuals(np.arange(float(n)), np.zeros(n), "y")
    assert not figure.axes[0].containers
    assert is_png(plot.png(figure))


def test_ensemble_size_shows_means_and_deviations():
    table = uncertainty.SizeCurve(*np.array([[1, 2, 3], [0.8, 0.9, 0.95], [0.1, 0.06, 0], [2, 1.5, 1], [0.5, 0.2, 0]]))
    figure = plot.ensemble_size(table._replace(size=np.array([1, 2, 3]), accuracy_sd=np.array([0.3, 0.06, 0])))
    for axes, mean in zip(figure.axes, (table.accuracy, table.nll), strict=True):
        np.testing.assert_array_equal(lines(axes)["mean over subsets"], np.transpose([table.size, mean]))
        assert lines(axes)["one member"] == [[0, mean[0]], [1, mean[0]]]
        assert axes.get_xscale() == "log"
    accuracy, nll = figure.axes
    assert [text.get_text() for text in nll.get_xticklabels()] == ["1", "2", "3"]
    bands = [axes.collections[0].get_paths()[0].vertices for axes in (accuracy, nll)]
    np.testing.assert_allclose([(band[:, 1].min(), band[:, 1].max()) for band in bands], [(0.5, 1.0), (1.0, 2.5)])
    assert accuracy.get_ylim()[1] == 1  # although 0.8 + 0.3 is more
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy", "negative log-likelihood"]
    assert nll.get_xlabel() == "members"
    assert is_png(plot.png(figure))


def test_ensemble_size_without_single_members_has_no_line_for_them():
    table = uncertainty.SizeCurve(np.array([2, 4]), *np.ones((4, 2)))
    assert "one member" not in lines(plot.ensemble_size(table).axes[0])


def test_rejection_starts_at_the_accuracy_of_all():
    (axes,) = plot.rejection(np.array([0, 0.5]), np.array([0.7, 1.0])).axes
    assert lines(axes) == {"rejected at random": [[0, 0.7], [1, 0.7]], "most uncertain first": [[0, 0.7], [0.5, 1.0]]}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("share rejected", "accuracy of the others")
    assert axes.get_ylim()[1] == 1


def test_spread_shows_members_their_mean_and_the_ensemble():
    (axes,) = plot.spread(np.array([0.7, 0.9, 0.8]), 0.95, "R²").axes
    shown = lines(axes)
    assert np.transpose(shown["members"])[0].tolist() == [0.7, 0.9, 0.8]
    assert np.transpose(shown["their mean, 0.8000"])[0].round(6).tolist() == [0.8, 0.8]
    assert np.transpose(shown["averaged prediction, 0.9500"])[0].tolist() == [0.95, 0.95]
    assert axes.get_xlabel() == "R²"
    assert not axes.patches


def test_many_members_have_a_histogram():
    (axes,) = plot.spread(np.linspace(0.7, 0.9, 40), 0.95).axes
    assert sum(bar.get_height() for bar in axes.patches) == 40
    assert len(axes.patches) == 13
    assert axes.get_ylabel() == "members"


@pytest.mark.parametrize(("scores", "counted"), [([0.9, 0.9], 2), ([0.9], 1), ([0.9, np.nan, 0.8], 2), ([np.nan], 0)])
def test_spread_of_equal_single_or_diverged_members(scores, counted):
    figure = plot.spread(np.array(scores), 0.9)
    (axes,) = figure.axes
    assert len(lines(axes)["members"]) == counted
    assert ("their mean, nan" in lines(axes)) == bool(np.isnan(scores).any())
    assert is_png(plot.png(figure))


def test_dollars_in_names_do_not_start_a_formula():
    r"""Matplotlib parses text between two dollar signs as TeX, and fails on `\x`."""
    figure = plot.confusion(np.eye(2, dtype=np.float32), np.arange(2), ["$5 to \\x$9", "more"])
    assert is_png(plot.png(figure))
    assert is_png(plot.png(plot.predictions(np.ones(2), np.arange(2.0), "pay $ or \\x$")))


IMAGES = np.arange(5 * 8 * 6.0).reshape(5, 8, 6)
LOGITS = np.log([[0.6, 0.4], [0.1, 0.9], [0.45, 0.55], [0.999, 0.001], [0.2, 0.8]])


def captions(figure):
    """Return the lines below the images, two for each."""
    texts = [text.get_text() for text in figure.axes[0].texts]
    return list(zip(texts[::2], texts[1::2], strict=True))


def test_uncertain_images_have_the_lowest_probabilities_first():
    figure = plot.uncertain(IMAGES, LOGITS, np.array([0, 1, 0, 0, 1]), ["cat", "dog"], context="pets")
    assert title(figure)[0] == "The 5 least certain test images"
    assert title(figure)[1].startswith("pets")
    assert captions(figure) == [
        ("true cat", "dog, 55 %"),
        ("true cat", "cat, 60 %"),
        ("true dog", "dog, 80 %"),
        ("true dog", "dog, 90 %"),
        ("true cat", "cat, > 99 %"),
    ]
    shown = np.asarray(figure.axes[0].images[0].get_array().filled(np.nan))
    np.testing.assert_array_equal(shown[:8, :6], IMAGES[2])
    colours = [to_rgb(text.get_color()) for text in figure.axes[0].texts[1::2]]
    assert colours[0] != colours[1] == colours[2]  # the first is wrong


def test_at_most_twelve_images_are_uncertain():
    figure = plot.uncertain(np.zeros((30, 8, 8)), np.zeros((30, 2)), np.zeros(30, int), ["a", "b"])
    assert len(captions(figure)) == 12


def test_mistakes_are_all_wrong_images_the_most_confident_first():
    figure = plot.mistakes(IMAGES, LOGITS, np.array([1, 1, 0, 1, 1]), ["cat", "dog"])
    assert title(figure)[0] == "All 3 wrong predictions among 5 test images"
    assert captions(figure) == [("true dog", "cat, > 99 %"), ("true dog", "cat, 60 %"), ("true cat", "dog, 55 %")]
    many = plot.mistakes(np.zeros((100, 8, 8, 3)), np.tile([1.0, 0.0], (100, 1)), np.ones(100, int), ["T-shirt", "bag"])
    assert title(many)[0] == "The 60 most confident of 100 wrong predictions among 100 test images"
    assert len(captions(many)) == 60
    none = plot.mistakes(IMAGES, LOGITS, LOGITS.argmax(1), ["cat", "dog"])
    assert title(none)[0] == "No wrong predictions among 5 test images"
    assert all(is_png(plot.png(picture)) for picture in (figure, many, none))


def test_first_layer_shows_the_units_with_the_largest_weights():
    weights = np.random.default_rng(0).normal(size=(12, 100)) * np.linspace(0.1, 1, 100)
    figure = plot.first_layer(weights, (3, 4))
    assert title(figure)[0] == "First-layer weights: the 64 largest of 100 units"
    kept = np.sort(np.argsort(np.linalg.norm(weights, axis=0))[-64:])
    shown = np.asarray(figure.axes[0].images[0].get_array().filled(np.nan))
    np.testing.assert_array_equal(shown[:3, 5:9], weights[:, kept[1]].reshape(3, 4))
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high
    with pytest.raises(
        ValueError, match=r"first_layer: weights must be \(pixels, units\) for images \(3, 5\), got \(12, 100\)"
    ):
        plot.first_layer(weights, (3, 5))


def upper(x):
    """Return the probabilities of a classifier that compares two features."""
    return np.stack([x[:, 1] < x[:, 0], x[:, 1] >= x[:, 0]], axis=1).astype(float)


def test_regions_show_the_predicted_class_and_the_wrong_rows():
    x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 0.5]])
    figure = plot.regions(upper, x, np.array([1, 0, 1]), ["low", "high"], ["a", "b"])
    (axes,) = figure.axes
    area = np.asarray(axes.images[0].get_array())
    assert area[-1, 0].tolist() != area[0, -1].tolist()
    blue, red = (np.array(to_rgb(style.QUALITATIVE[i])) for i in (0, 1))
    np.testing.assert_allclose(area[0, -1], 0.55 + 0.45 * blue)  # the lower right corner, class 0
    np.testing.assert_allclose(area[-1, 0], 0.55 + 0.45 * red)
    wrong = [line for line in axes.lines if line.get_marker() == "X" and len(line.get_xdata())]
    assert [np.transpose(line.get_data()).tolist() for line in wrong] == [[[2.0, 0.5]]]
    assert wrong[0].get_color() == style.QUALITATIVE[1]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")
    for wrong_x, classes in ((np.ones((3, 3)), ["a", "b"]), (x, [str(i) for i in range(11)])):
        with pytest.raises(ValueError, match=r"^regions: "):
            plot.regions(upper, wrong_x, np.zeros(3, int), classes, ["a", "b"])


def test_a_surface_has_the_scale_of_its_rows():
    x, target = np.array([[0.0, 1.0], [2.0, 4.0]]), np.array([1.0, 60.0])
    figure = plot.surface(lambda x: 10 * x[:, 0], x, target, ["width", "height"], "weight")
    axes, bar = figure.axes
    heights = np.asarray(axes.images[0].get_array())
    assert heights[0, -1] > heights[-1, 0]  # rises to the right
    rows = axes.collections[-1]
    assert rows.get_clim() == axes.images[0].get_clim() == (heights.min(), 60.0)
    np.testing.assert_array_equal(rows.get_array(), target)
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("width", "height", "weight")
    with pytest.raises(ValueError, match=r"^surface: x must be \(rows, 2\), got \(2, 3\)"):
        plot.surface(lambda x: x[:, 0], np.ones((2, 3)), target, ["a", "b", "c"], "t")


@pytest.mark.parametrize(("values", "bottom"), [([-9.0, 0.5], -1), ([-9.0, -8.0], -9.05), ([0.1, 0.5], 0.08)])
def test_low_r2_of_the_first_epochs_is_cut_off_but_never_all_of_it(values, bottom):
    _, score = plot.curves([{"epoch": i, "loss": 1.0, "validation_r2": r2} for i, r2 in enumerate(values)]).axes
    low, high = score.get_ylim()
    assert low == pytest.approx(bottom)
    assert high > max(values)


def test_few_residuals_have_no_shares():
    few, many = (plot.residuals(np.arange(n) * 1.0, np.zeros(n), "t") for n in (19, 20))
    shown = [[text.get_text() for text in figure.axes[0].get_legend().get_texts()] for figure in (few, many)]
    assert ["90 %" in " ".join(texts) for texts in shown] == [False, True]


def test_function_of_an_ensemble_has_its_members_and_a_band():
    x, target = np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 4.0])
    (axes,) = plot.function(lambda x: np.stack([x, 3 * x]), x, target, "time", "height").axes
    shown = lines(axes)
    assert shown["test rows"] == [[0, 1], [1, 2], [2, 4]]
    mean = np.array(shown["mean of 2 members"])
    np.testing.assert_allclose(mean[:, 1], 2 * mean[:, 0])
    assert (mean[0, 0], mean[-1, 0]) == (-0.1, 2.1)
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(2.1 * (2 + 2 * 2**0.5))  # sd of 1 and 3 is √2
    (axes,) = plot.function(lambda x: x[None], x, target, "time", "height").axes
    assert "prediction" in lines(axes)
    assert not axes.collections


def test_repetition_shows_relative_differences_and_the_arrays_that_differ():
    first, repeated = np.array([[2.0, 1.0], [4.0, np.nan]]), np.array([[2.0, 1.5], [4.0, np.nan]])
    figure = plot.repetition(first, repeated, {"a": 1e-6, "b": 0.25, "c": np.nan}, tolerance=0.01)
    losses, weights = figure.axes
    assert title(figure)[0] == "Repetition: how far it is from the first run"
    drawn = [line.get_ydata() for line in losses.lines if len(line.get_xdata()) == 2][:2]
    np.testing.assert_allclose(drawn, [[1e-9, 0.5], [1e-9, np.nan]])
    assert "tolerance, 0.01" in lines(losses)
    assert [text.get_text() for text in weights.get_yticklabels()] == ["a", "b", "c"]  # the largest on top
    assert [bar.get_width() for bar in weights.patches] == [1e-6, 0.25]
    assert [text.get_text() for text in weights.texts] == ["not comparable"]
    with pytest.raises(ValueError, match=r"^repetition: "):
        plot.repetition(first, first[0], {})


def test_a_repetition_with_the_same_bits():
    figure = plot.repetition(np.array([1.0, np.nan]), np.array([1.0, np.nan]), {})
    assert title(figure)[0] == "Repetition: equal, bit for bit"
    assert len(figure.axes) == 1
    assert is_png(plot.png(figure))


def test_long_names_keep_both_ends():
    assert style.shorten("a long name 17", 9) == "a lon… 17"
    assert style.shorten("short $", 9) == r"short \$"


def test_letters_without_a_glyph_are_no_warning():
    assert is_png(plot.png(plot.confusion(np.eye(2, dtype=np.float32), np.arange(2), ["猫", "狗"])))


def test_importance_is_sorted_and_has_intervals():
    drops = np.array([np.linspace(-0.1, 0.1, 41), np.linspace(0.3, 0.5, 41)])
    (axes,) = plot.importance(["noise", "height"], drops, "R²").axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["noise", "height"]  # from the bottom
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0, 0.4], atol=1e-12)
    (intervals,) = axes.collections
    np.testing.assert_allclose([line[:, 0] for line in intervals.get_segments()], [[-0.095, 0.095], [0.305, 0.495]])
    assert "R²" in axes.get_xlabel()
    many = plot.importance([f"x{i}" for i in range(50)], np.arange(50.0)[:, None])
    assert [text.get_text() for text in many.axes[0].get_yticklabels()][-1] == "x49"
    assert len(many.axes[0].patches) == 20
    with pytest.raises(ValueError, match=r"^importance: "):
        plot.importance(["a"], drops)


TRIALS = [
    {"trial": 0, "rate": 0.1, "act": "relu", "score": 2.0, "epochs": 1.0, "score_1": 2.0, "score_3": NAN},
    {"trial": 1, "rate": 0.2, "act": "tanh", "score": 0.5, "epochs": 3.0, "score_1": 1.0, "score_3": 0.5},
    {"trial": 3, "rate": 0.4, "act": "relu", "score": NAN, "epochs": 0.0, "score_1": NAN, "score_3": NAN},
    {"trial": 2, "rate": 0.1, "act": "relu", "score": 1.0, "epochs": 3.0, "score_1": 1.5, "score_3": 1.0},
]


@pytest.mark.parametrize("rungs", [1, 2, 4, 7])
@pytest.mark.parametrize("settings", [1, 2])
def test_the_legend_of_a_search_fits_into_the_picture(rungs, settings):
    rows = [
        {"trial": i, "a": 0.1 * i, "b": i % 3, "score": 1.0 / (i + 1), "epochs": 3.0 ** (i % rungs), "score_1": 1.0}
        for i in range(14)
    ]
    for figure in (plot.search_progress(rows), plot.search(rows, ["a", "b"][:settings])):
        (legend,) = figure.legends
        figure.canvas.draw()
        assert len(legend.get_texts()) >= rungs
        assert figure.bbox.x0 <= legend.get_window_extent().x0 <= legend.get_window_extent().x1 <= figure.bbox.x1


def test_a_search_shows_trials_by_rung_and_the_lowest_score_so_far():
    time = plot.search_progress(TRIALS).axes[0]
    shown = lines(time)
    assert shown["1 epoch"] == [[0, 2.0]]
    assert shown["3 epochs"] == [[1, 0.5], [2, 1.0]]
    assert [y for _, y in shown["lowest so far"]] == [2.0, 0.5, 0.5, 0.5]
    assert time.get_yscale() == "log"
    figure = plot.search(TRIALS, ["rate", "act", "rate"], log=["rate"], context="digits")
    rate, act, _, unused = figure.axes
    assert lines(rate)["diverged"] == [[0.4, 0.97]]
    assert lines(rate)["best"] == [[0.2, 0.5]]
    assert (rate.get_xscale(), rate.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in act.get_xticklabels()] == ["relu", "tanh"]
    assert not unused.get_visible()
    for draw in (plot.search, plot.search_importance, plot.parallel_coordinates):
        with pytest.raises(ValueError, match="needs settings and trials"):
            draw([], ["rate"])


def test_few_numbers_of_a_search_have_a_place_each():
    rows = [TRIALS[0] | {"trial": i, "width": 16 * 2 ** (i % 3), "score": 1.0 + i} for i in range(9)]
    (axes,) = plot.search(rows, ["width"]).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["16", "32", "64"]
    x = np.array(lines(axes)["1 epoch"])[:, 0]
    assert (np.round(x) == np.arange(9) % 3).all()
    assert len(np.unique(x)) == 9  # no point hides another one
    assert re.fullmatch(r"width \(explains \d+ %\)", axes.get_xlabel())
    assert plot.search(rows[:7], ["width"]).axes[0].get_xlabel() == "width"  # could be chance


def test_importance_of_the_settings_of_a_search():
    rng = np.random.default_rng(1)
    rows = [
        {"trial": i, "rate": rate, "noise": rng.uniform(), "score": 1 + rate, "epochs": 1.0, "score_1": 1 + rate}
        for i, rate in enumerate(rng.uniform(size=100).tolist())
    ]
    axes = plot.search_importance(rows, ["noise", "rate"]).axes[0]
    noise, rate = (bar.get_width() for bar in axes.patches)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["noise", "rate"]
    assert rate > 0.9 > noise
    chance = [path.vertices[0, 0] for path in axes.collections[0].get_paths()]
    assert noise < chance[0] < 0.2


def test_parallel_coordinates_put_each_value_on_its_axis():
    figure = plot.parallel_coordinates(TRIALS, ["rate", "act"], log=["rate"])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["rate", "act", "score"]
    best = np.array(lines(axes)["best"])[:, 1]
    assert best[0] == pytest.approx(0.5)  # 0.2 between 0.1 and 0.4
    assert best[1] == pytest.approx(1, abs=0.02)
    assert best[2] == 0
    assert "1 diverged" in axes.get_title(loc="left")


def test_the_variance_that_a_setting_explains():
    x = np.arange(80) % 4.0
    noise = np.random.default_rng(0).normal(size=80)
    assert explained(x, np.exp(x)) == pytest.approx(1)
    assert explained(x, np.exp(noise)) < 0.1
    assert explained(np.linspace(0, 1, 80), np.exp(np.linspace(0, 1, 80))) > 0.9  # eight groups
    assert explained(x, np.exp(x + 0.5 * noise)) == pytest.approx(1.25 / (1.25 + 0.25), abs=0.1)
    assert explained(x, np.ones(80)) == 0
    few = [explained(rng.uniform(size=8), rng.lognormal(size=8)) for rng in map(np.random.default_rng, range(50))]
    assert np.median(few) < 0.2  # eight values of eight trials are two groups


PICTURES = {
    "search": lambda context: plot.search(TRIALS, ["rate", "act"], ["rate"], context=context),
    "search_progress": lambda context: plot.search_progress(TRIALS, context=context),
    "search_importance": lambda context: plot.search_importance(TRIALS, ["rate", "act"], context=context),
    "parallel_coordinates": lambda context: plot.parallel_coordinates(TRIALS, ["rate", "act"], context=context),
    "curves": lambda context: plot.curves(HISTORY, context=context),
    "confusion": lambda context: plot.confusion(LOGITS, np.array([1, 1, 0, 1, 1]), ["cat", "dog"], context=context),
    "reliability": lambda context: plot.reliability(LOGITS, np.array([1, 1, 0, 1, 1]), context=context),
    "predictions": lambda context: plot.predictions(np.arange(4) * 1e6, np.arange(4) * 1.1e6, "price", context=context),
    "residuals": lambda context: plot.residuals(np.arange(90) * 1e6, np.arange(90) * 1.1e6, "price", context=context),
    "ensemble_size": lambda context: plot.ensemble_size(
        uncertainty.SizeCurve(np.array([1, 2, 100]), *np.full((4, 3), 0.5)), context=context
    ),
    "rejection": lambda context: plot.rejection(np.linspace(0, 0.9, 10), np.linspace(0.8, 1, 10), context=context),
    "spread": lambda context: plot.spread(np.array([0.91, 0.92, 0.97]), 0.98, context=context),
    "sweep": lambda context: plot.sweep(
        [{"rate": r, "width": w, "validation_loss": r * w} for r in (1e-4, 1e-3, 3e-3) for w in (16, 32)],
        ["rate", "width"], ["rate", "width"], context=context,
    ),
    "uncertain": lambda context: plot.uncertain(IMAGES, LOGITS, np.zeros(5, int), ["cat", "dog"], context=context),
    "mistakes": lambda context: plot.mistakes(IMAGES, LOGITS, np.zeros(5, int), ["ankle boot", "dog"], context=context),
    "first_layer": lambda context: plot.first_layer(np.eye(16), (4, 4), context=context),
    "regions": lambda context: plot.regions(
        upper, np.eye(3, 2), np.array([0, 1, 1]), ["a", "b"], ["x", "y"], context=context
    ),
    "repetition": lambda context: plot.repetition(
        np.ones(10), 1 + 1e-4 * np.arange(10), {"params/1/w": 1e-3, "params/4/w": np.nan}, context=context
    ),
    "function": lambda context: plot.function(
        lambda x: np.stack([x, 2 * x]), np.arange(4) * 1e6, np.arange(4) * 2e6, "a", "b", context=context
    ),
    "importance": lambda context: plot.importance(["a", "b"], np.eye(2), context=context),
    "surface": lambda context: plot.surface(
        lambda x: x.sum(1) * 1e6, np.eye(3, 2) * 1e6, np.arange(3) * 1e6, ["a", "b"], "price", context=context
    ),
}  # fmt: skip
LONG = [f"a column with a very long name that is number {i} of the columns of the file" for i in range(30)]
MANY = np.random.default_rng(1).normal(size=(300, 30)).astype(np.float32)
HARD = {  # data that are small, constant or many
    "confusion of 30 classes": lambda context: plot.confusion(MANY, np.arange(300) % 30, LONG, context=context),
    "confusion of a row": lambda context: plot.confusion(MANY[:1, :2], np.array([0]), LONG[:2], context=context),
    "mistakes of long names": lambda context: plot.mistakes(IMAGES, LOGITS, np.zeros(5, int), LONG, context=context),
    "regions of long names": lambda context: plot.regions(
        upper, np.eye(3, 2), np.array([0, 1, 1]), LONG[:2], LONG[2:4], context=context
    ),
    "regions of a row": lambda context: plot.regions(
        upper, np.ones((1, 2)), np.array([0]), ["a", "b"], ["x", "y"], context=context
    ),
    "surface of long names": lambda context: plot.surface(
        lambda x: x.sum(1) * 1e6, np.eye(3, 2) * 1e6, np.arange(3) * 1e6, LONG, LONG[2], context=context
    ),
    "constant surface": lambda context: plot.surface(
        lambda x: np.full(len(x), 0.5), np.ones((2, 2)), np.array([0.5, 0.5]), ["a", "b"], "t", context=context
    ),
    "constant function": lambda context: plot.function(
        lambda x: np.full((1, len(x)), 1e-7), np.ones(2), np.full(2, 1e-7), LONG[0], LONG[1], context=context
    ),
    "two predictions": lambda context: plot.predictions(np.ones(2), np.array([1, 1e9]), LONG[0], context=context),
    "constant predictions": lambda context: plot.predictions(np.ones(2), np.ones(2), "t", context=context),
    "two residuals": lambda context: plot.residuals(np.array([1e9, 1]), np.ones(2), LONG[0], context=context),
    "small residuals": lambda context: plot.residuals(np.arange(30) * 1e-9, np.ones(30), LONG[0], context=context),
    "importance of long names": lambda context: plot.importance(LONG, np.eye(30), context=context),
    "importance of nothing": lambda context: plot.importance(["a", "b"], np.zeros((2, 5)), context=context),
    "many epochs": lambda context: plot.curves(
        [{"epoch": i, "loss": 10.0 ** -(i / 400), "validation_r2": -10.0, "validation_loss": 1.0} for i in range(4000)],
        training="mean over the steps of the epoch, raised by dropout 0.3 and batch statistics; with class weights",
        context=context,
    ),
    "two epochs": lambda context: plot.curves(HISTORY[1:3], best_epoch=2.0, context=context),
}  # fmt: skip
CONTEXT = "a-file-with-a-long-name.csv → a_target · 2 × 256 relu, batch norm · seed 0 · test accuracy 0.9833"


def boxes(figure, texts):
    """Return the boxes (n, 4) of the texts that are shown, as left, bottom, right and top in pixels."""
    shown = [text.get_window_extent(figure.canvas.get_renderer()) for text in texts if text.get_text()]
    return np.array([box.extents for box in shown]).reshape(-1, 4)


def test_every_picture_is_tested_for_its_title():
    assert {*PICTURES, "png"} == set(plot.__all__)


@pytest.mark.parametrize("name", [*PICTURES, *HARD])
def test_every_picture_has_a_title_inside_and_labels_that_do_not_collide(name):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = (PICTURES | HARD)[name](CONTEXT)
    headline, context = title(figure)
    assert headline[0].isupper()
    assert context.replace("\N{NO-BREAK SPACE}", " ").startswith(CONTEXT)
    FigureCanvasAgg(figure).draw()
    width, _ = figure.get_size_inches() * figure.dpi
    header = boxes(figure, figure.texts)
    assert not [
        axis.get_offset_text().get_text()
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if axis.get_offset_text().get_text()
    ]
    assert header[:, 2].max() <= width
    for axes in figure.axes:
        legend = axes.get_legend()
        below = boxes(figure, [axes.xaxis.label, axes.yaxis.label, *(legend.get_texts() if legend else ())])
        assert (below[:, 2] <= width + 1).all()  # nothing is cut off
        assert (below[:, 3] <= header[:, 1].min() + 1).all()  # nothing touches the title
        for axis, before, after in ((axes.xaxis, 0, 2), (axes.yaxis, 1, 3)):
            ticks = [tick for tick in axis.get_major_ticks() if tick.label1.get_visible()]
            low, high = sorted(axis.get_view_interval())
            labels = [tick.label1 for tick in ticks if low <= tick.get_loc() <= high and not tick.label1.get_rotation()]
            place = boxes(figure, labels)
            place = place[np.argsort(place[:, before])]
            assert (place[1:, before] >= place[:-1, after]).all(), [label.get_text() for label in labels]


@pytest.mark.parametrize("history", [HISTORY, [{"epoch": 1, "loss": 1.0}]])
def test_png_is_a_complete_file_of_the_size_of_the_figure(history):
    figure = plot.curves(history)
    content = plot.png(figure)
    assert is_png(content)
    size = [int.from_bytes(content[16:20]), int.from_bytes(content[20:24])]
    np.testing.assert_allclose(size, 150 * figure.get_size_inches(), atol=1)


def test_no_global_state_changes():
    program = (
        "import sys; from nnjax import plot; assert 'matplotlib' not in sys.modules; "
        "plot.png(plot.curves([{'epoch': 1, 'loss': 1.0}])); assert 'matplotlib' in sys.modules; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
