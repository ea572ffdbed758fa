"""Figures of networks: which maps are drawn, pairing of points, captions."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import tiny
from own_modules import Tapped, Unordered, Untapped

from at_jax.errors import UserError
from at_jax.figures import images, network_figures, networks, pairing, style
from at_jax.figures.networks import Network

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
IMAGES = images.Images(PIXELS, tuple(np.repeat(x, 3, -1) for x in PIXELS), np.array([1, 0]))
DESCRIPTION = {
    "image_shape": [8, 8, 1], "mean": [120.0], "std": [60.0], "num_classes": 2,
    "class_names": ["cat", "dog"],
}  # fmt: skip


@functools.cache
def initialized(module):
    return tiny.jit(module.init)(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))


def network(title, module=None, **changes):
    module = module or Tapped(classes=2)
    return Network(title, module, initialized(module), {**DESCRIPTION, **changes})


def headings(figure):
    """Titles and column heads; where a line breaks depends on the fonts."""
    groups = [axes for axes in figure.axes if axes.get_title()]
    heads = [label.get_text() for axes in groups for label in axes.get_xticklabels()]
    return tuple(
        [" ".join(text.split()) for text in texts]
        for texts in ([axes.get_title() for axes in groups], heads)
    )


def test_attention_grid_has_a_group_a_point_and_a_column_a_network():
    shown = [network("student"), network("untrained"), network("teacher")]
    with style.context():
        maps = network_figures.attention_grid(shown, IMAGES, title="Maps", kind="max", p=1)
        figure = maps.draw()
    titles, heads = headings(figure)
    assert titles == ["only (2x2)"]
    assert heads == ["untrained", "student", "teacher"]  # the order of progress
    assert figure.get_suptitle() == "Maps"
    assert figure.get_supxlabel() == (
        "Attention maps F_max over the image. Maps are divided by their RMS (1 = uniform). Color scale "
        "clipped at the 99.5th percentile."
    )


def test_attention_grid_draws_the_points_compared_in_training_by_path():
    student = dataclasses.replace(network("student", Untapped()), paths=("layer",))
    untrained = dataclasses.replace(student, title="untrained")
    teacher = network("teacher", num_classes=10)
    with style.context():
        figure = network_figures.attention_grid(
            [student, untrained, teacher], IMAGES, points=("layer<-only",), title="Maps"
        ).draw()
    titles, heads = headings(figure)
    assert titles == ["layer (2x2)"]
    assert heads == ["untrained", "student", "teacher only"]


def test_attention_grid_has_transfer_points_in_the_order_of_the_network():
    maps = network_figures.attention_grid([network("student", Unordered())], IMAGES, title="Maps")
    with style.context():
        assert headings(maps.draw())[0] == ["zebra (4x4)", "ant (2x2)"]
        narrow = maps.draw_narrow()
    assert [headings(figure)[0] for figure in narrow] == [["zebra (4x4)"], ["ant (2x2)"]]
    assert [bool(figure.get_supxlabel()) for figure in narrow] == [False, True]


def test_attention_grid_of_points_that_cannot_be_paired_raises():
    other = dataclasses.replace(network("other", Untapped()), paths=("layer", "stem"))
    with pytest.raises(UserError, match="other and student must have the same transfer points"):
        network_figures.attention_grid([network("student"), other], IMAGES, title="")


def test_mapping_figure_has_a_row_a_point_and_a_column_a_mapping():
    with style.context():
        figure = network_figures.mapping_figure([network("student")], IMAGES, title="Four")
    assert headings(figure)[0] == ["F_sum", "F_sum^2", "F_sum^4", "F_max"]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:3] == ["student", "only (2x2)", "dog"]


def test_gradient_figure_takes_the_predicted_class_of_a_network_with_other_classes(monkeypatch):
    given = []

    def record(self, pixels, labels):
        given.append(labels)
        return np.zeros((2, 2)), np.ones((2, 8, 8))

    monkeypatch.setattr(Network, "input_gradient", record)
    shown = [network("student"), network("teacher", class_names=["a", "b"])]
    with style.context():
        network_figures.gradient_figure(shown, IMAGES, title="J")
    assert given[0] is IMAGES.labels and given[1] is None


def test_captions_mark_predictions_unless_classes_differ():
    logits = np.array([[0.0, 1.0], [0.0, 1.0]])  # dog, dog
    other = network("teacher", class_names=["car", "bus"])
    shown = [network("student"), network("untrained"), other]
    first, second = network_figures.captions(shown, [logits] * 3, IMAGES)
    assert [line.text for line in first] == ["dog", "✓ student: dog", "teacher: bus"]
    assert [line.text for line in second] == ["cat", "✗ student: dog", "teacher: bus"]
    assert [line.color for line in second] == ["black", style.WRONG, "black"]
    # The line of the student marks the row, although another network is drawn on its left.
    alone = network("student alone")
    _, lines = network_figures.captions([shown[0], alone], [logits, 1 - logits], IMAGES)
    assert [line.text for line in lines] == ["cat", "✓ student alone: cat", "✗ student: dog"]
    assert [line.marks_row for line in lines] == [False, False, True]
    unknown = dataclasses.replace(IMAGES, labels=np.array([images.UNKNOWN] * 2))
    (lines, _) = network_figures.captions(shown[:1], [logits], unknown)
    assert [(line.text, line.color) for line in lines] == [("student: dog", "black")]


def test_pairs_are_those_of_the_config_or_all_in_order():
    assert pairing.pairs((), ("a", "b"), ("c", "d")) == (("a", "c"), ("b", "d"))
    assert pairing.pairs((), ("a", "b"), ("c",)) == ()
    assert pairing.pairs(["b<-c"], ("a", "b"), ("c",)) == (("b", "c"),)


def test_check_images_of_other_sizes_raises_and_of_other_classes_does_not():
    student = network("student")
    pairing.check_images([student, network("teacher", num_classes=5)])
    other = networks.Network("other", None, None, {**DESCRIPTION, "image_shape": [8, 8, 3]})
    with pytest.raises(UserError, match="other and student must take images of one size"):
        pairing.check_images([student, other])
