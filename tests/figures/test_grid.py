"""Grids of maps: positions, colors, scales, and text that neither overlaps nor leaves the figure."""

import itertools
import os

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from at_jax.figures import grid, style

BLACK = np.zeros((8, 8, 3), np.uint8)


def test_overlay_places_a_known_map():
    # Only the lower left quarter of a 2x2 map is bright: so is the lower left of the enlarged one.
    cell = grid.overlay(BLACK, np.array([[0.0, 0.0], [1.0, 0.0]]), 1.0, (96, 96), 1.0)
    assert cell.shape == (96, 96, 3) and cell.dtype == np.uint8
    colors = matplotlib.colormaps[style.MAP_COLORS]
    dark, half, bright = (255 * np.array(colors(value))[:3] for value in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(cell[90, 5], bright, atol=3)
    for y, x in ((5, 5), (5, 90), (90, 90)):
        np.testing.assert_allclose(cell[y, x], dark, atol=3)
    # Half way between the two lower centers (24 and 72) the value is half.
    np.testing.assert_allclose(cell[90, 48], half, atol=10)


def test_overlay_brightness_is_that_of_the_map_not_of_the_image():
    gray = np.concatenate([np.zeros((8, 4, 3)), np.full((8, 4, 3), 255)], axis=1).astype(np.uint8)
    low, high = (
        grid.overlay(gray, np.full((1, 1), value), 1.0, (96, 96), 0.7).astype(int).sum(axis=-1)
        for value in (0.1, 0.9)
    )
    assert low.min() < low.max() < high.min() < high.max()  # the image is visible in both


def test_scale_limit_is_a_quantile_of_all_columns_and_never_zero():
    columns = [
        grid.Column("group1", "student", [np.zeros((20, 20)), np.full((20, 20), 3.0)]),
        grid.Column("group1", "teacher", [np.full((20, 20), 2.0), np.full((1, 1), 500.0)]),
    ]
    assert grid.scale_limit(columns) == 3.0  # one value of 1,201 is clipped
    assert grid.scale_limit([grid.Column("", "", [np.zeros((1, 1))])]) == 1.0


def _drawn(path, groups, heads, captions, title="A title", note="A note.", shape=(8, 8, 3)):
    image = np.full(shape, 200, np.uint8)
    values = [np.arange(64.0).reshape(8, 8)] * len(captions)
    columns = [grid.Column(group, head, values) for group in groups for head in heads]
    with style.context():
        figure = grid.draw([image] * len(captions), columns, captions, title=title, note=note)
        style.save(figure, path)
    return figure


def _texts(figure):
    """Visible texts and their boxes, by the words."""
    renderer = figure.canvas.get_renderer()
    found = [
        text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()
    ]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found]


LONG = [grid.Line("a class with a very long name", bold=True), grid.Line("✗ " + 60 * "n", "red")]


@pytest.mark.parametrize(
    ("groups", "heads", "captions", "shape"),
    [
        (["group1 (8x8)"], ["student"], [[]], (8, 8, 3)),
        (["stage1 (56x56)", "stage2 (28x28)", "stage3 (14x14)"], ["resnet_18"], [[]] * 2, (8, 8, 3)),
        (["group1 (8x8)", "group2 (4x4)"], ["a longer name above", "teacher"], [LONG] * 2, (8, 16, 3)),
        (["encoder/layers_3/attention (8x8)"] * 1, ["teacher encoder/layers_12/attention_output"],
         [LONG * 4] * 3, (300, 300, 3)),
        ([f"group{i} (8x8)" for i in range(5)], ["attention transfer + distillation", "untrained"],
         [LONG] * 2, (16, 8, 3)),
    ],
)  # fmt: skip
def test_text_of_a_grid_neither_overlaps_nor_leaves_the_figure(
    tmp_path, groups, heads, captions, shape
):
    title = "Attention maps of wrn_10_1 (attention transfer + gradient transfer + distillation)"
    figure = _drawn(tmp_path / "a.png", groups, heads, captions, title, "Many words. " * 20, shape)
    texts = _texts(figure)
    words = " ".join(" ".join(text.split()) for text, _ in texts)
    for wanted in (*groups, *heads, title):
        assert wanted.replace("/", "") in words.replace("/ ", "/").replace("/", ""), wanted
    assert words.count("map / RMS") == len(groups)
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other, box_of_other) in itertools.combinations(texts, 2):
        assert not box.padded(-2).overlaps(box_of_other.padded(-2)), (text, other)


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 16, 3), (16, 8, 3)])
def test_cells_keep_the_proportions_of_the_image(tmp_path, shape):
    figure = _drawn(
        tmp_path / "a.png", ["group1"], ["student"], [[grid.Line("a")]] * 3, shape=shape
    )
    box = figure.axes[1].bbox  # of the images
    heights = 3 * shape[0] / shape[1]
    assert box.height / box.width == pytest.approx(heights, rel=0.06)  # with two gaps


def test_a_grid_of_eight_images_and_nine_columns_is_a_small_file(tmp_path):
    random = np.random.default_rng(0)
    shown = [np.broadcast_to(random.integers(0, 256, (16, 16, 1), np.uint8), (16, 16, 3))] * 8
    smooth = np.cumsum(random.normal(size=(8, 4, 4)), axis=-1) ** 2
    columns = [
        grid.Column(g, h, smooth) for g in "abc" for h in ("student", "untrained", "teacher")
    ]
    with style.context():
        figure = grid.draw(shown, columns, [[grid.Line("a")]] * 8, title="A", note="B.")
        style.save(figure, tmp_path / "a.png")
    assert 20_000 < os.path.getsize(tmp_path / "a.png") < 400_000


def test_mistakes_have_a_bar_of_another_color(tmp_path):
    from PIL import Image

    captions = [
        [grid.Line("✓ student: 1", style.RIGHT)],
        [grid.Line("✗ student: 2", style.WRONG)],
    ]
    _drawn(tmp_path / "a.png", ["group1"], ["student"], captions)
    with Image.open(tmp_path / "a.png") as file:
        pixels = np.asarray(file.convert("RGB"))
    rows = []
    for color in (style.RIGHT, style.WRONG):
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        y, _ = np.nonzero((np.abs(pixels.astype(int) - wanted) < 3).all(axis=-1))
        assert len(y) > 300  # a bar of several pixels beside the image, and the text
        rows.append(np.median(y))
    assert rows[0] < rows[1]
