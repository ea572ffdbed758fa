"""Cells and grids: where a map lands, in which colour, on which scale."""

import matplotlib
import numpy as np
import pytest

from at_jax.figures import canvas, cells, grid

BLACK = np.zeros((8, 8, 3), np.uint8)


def test_a_known_map_lands_where_it_should():
    # Only the lower left quarter of a 2x2 map is bright: so is the lower left of the enlarged one.
    q = np.array([[0.0, 0.0], [1.0, 0.0]])
    cell = cells.overlay(BLACK, q, 1.0, opacity=1.0)
    assert cell.shape == (96, 96, 3) and cell.dtype == np.uint8
    colours = np.round(255 * np.array(matplotlib.colormaps[canvas.MAP_COLOURS]([0.0, 1.0]))[:, :3])
    np.testing.assert_allclose(cell[90, 5], colours[1], atol=3)
    for y, x in ((5, 5), (5, 90), (90, 90)):
        np.testing.assert_allclose(cell[y, x], colours[0], atol=3)
    # Half way between the two lower centres (24 and 72) the value is half.
    half = 255 * np.array(matplotlib.colormaps[canvas.MAP_COLOURS](0.5))[:3]
    np.testing.assert_allclose(cell[90, 48], half, atol=10)


def test_brightness_is_that_of_the_value_not_of_the_image():
    grey = np.concatenate([np.zeros((8, 4, 3)), np.full((8, 4, 3), 255)], axis=1).astype(np.uint8)
    low = cells.overlay(grey, np.full((1, 1), 0.1), 1.0).astype(int).sum(axis=-1)
    high = cells.overlay(grey, np.full((1, 1), 0.9), 1.0).astype(int).sum(axis=-1)
    assert low.min() < low.max() < high.min() < high.max()  # the image shows through in both


def test_columns_of_a_point_share_their_scale():
    columns = [
        cells.Column("group1", "student", [np.full((2, 2), 1.0), np.full((2, 2), 3.0)]),
        cells.Column("group1", "teacher", [np.full((4, 4), 2.0), np.full((4, 4), 5.0)]),
        cells.Column("group2", "student", [np.zeros((1, 1)), np.zeros((1, 1))]),
    ]
    assert cells.limits(columns) == {"group1": 5.0, "group2": 1.0}  # never a scale without length


def test_even_maps_are_one_everywhere_in_every_size():
    for side in (2, 7):
        even = cells.even(np.full((1, side, side), 0.3, np.float32))
        np.testing.assert_allclose(even, 1, rtol=1e-6)
    # Root mean square of 0, 0, 0, 4 is 2.
    spike = cells.even(np.array([[[0.0, 0.0], [0.0, 4.0]]], np.float32))
    np.testing.assert_allclose(spike.ravel(), [0, 0, 0, 2], rtol=1e-6)


def _drawn(captions, head="student", note="A note.", shape=(8, 8, 3)):
    image = np.full(shape, 200, np.uint8)
    columns = [
        cells.Column("group1 (8x8)", head, [np.ones((8, 8))] * 2),
        cells.Column("group1 (8x8)", "teacher", [np.ones((8, 8))] * 2),
    ]
    with canvas.style():
        figure = grid.draw([image] * 2, columns, captions, title="A title", note=note)
        canvas.save(figure, "grid.png", photographs=True)
    return figure


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 16, 3), (300, 300, 3)])
def test_nothing_is_cut_and_nothing_overlaps(tmp_path, monkeypatch, shape):
    monkeypatch.chdir(tmp_path)
    caption = [
        grid.Line("a class of a very long name", bold=True),
        grid.Line("✗ " + 60 * "n", "red"),
    ]
    figure = _drawn([caption] * 2, "a long name above", "Many words. " * 30, shape)
    renderer = figure.canvas.get_renderer()
    texts = [t for t in figure.axes[0].texts if t.get_text()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        inside = box.x0 >= 0 and box.y0 >= 0
        inside = inside and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert inside, text.get_text()
    for i, box in enumerate(boxes):
        for other in range(i + 1, len(boxes)):
            shrunk = box.padded(-2)
            assert not shrunk.overlaps(boxes[other].padded(-2)), (texts[i], texts[other])


def test_right_and_wrong_are_seen_at_a_glance(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    _drawn([[grid.Line("✓ student: 1", canvas.RIGHT)], [grid.Line("✗ student: 2", canvas.WRONG)]])
    with Image.open("grid.png") as file:
        pixels = np.asarray(file.convert("RGB"))
    rows = []
    for colour in (canvas.RIGHT, canvas.WRONG):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        y, _ = np.nonzero((np.abs(pixels.astype(int) - wanted) < 3).all(axis=-1))
        assert len(y) > 300  # a strip of 5 x 96 beside the image, and the text
        rows.append(np.median(y))
    assert rows[0] < rows[1]
