"""Colours, names and files of the drawings."""

import itertools
import os
import subprocess
import sys

import pytest
from PIL import Image

from at_jax import methods
from at_jax.figures import canvas


def _rgb(colour):
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _size(path):
    with Image.open(path) as image:
        return image.size


def test_every_method_has_a_colour_and_a_name():
    for method in methods.METHODS:
        assert method in canvas.METHOD_COLOURS
        assert "_" not in canvas.label(method)
    assert canvas.colour("min_l2+flip_symmetry") not in canvas.METHOD_COLOURS.values()
    with pytest.raises(ValueError, match="method must be one of"):
        canvas.colour("atention")


def test_colours_are_told_apart():
    for a, b in itertools.combinations(canvas.METHOD_COLOURS.values(), 2):
        distance = sum((x - y) ** 2 for x, y in zip(*map(_rgb, (a, b)), strict=True))
        assert distance > 50**2, (a, b)


def test_a_figure_is_written_whole_or_not_at_all(tmp_path):
    with canvas.style():
        figure, axes = canvas.figure(3, 2, rows=2, columns=3)
        assert axes.shape == (2, 3)
        axes[0, 0].set_title("costs $5 and $6")  # no formula
        canvas.save(figure, tmp_path / "new" / "a.png")
    assert _size(tmp_path / "new" / "a.png") == (330, 220)  # 110 dots an inch
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_large_figures_get_fewer_dots(tmp_path):
    figure, _ = canvas.figure(48, 2)
    canvas.save(figure, tmp_path / "a.png")
    assert _size(tmp_path / "a.png") == (2400, 100)


def test_names_and_places_that_cannot_be_written(tmp_path):
    figure, _ = canvas.figure(1, 1)
    with pytest.raises(ValueError, match=r"written as \.png, got 'a\.svg'"):
        canvas.save(figure, "a.svg")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        canvas.save(figure, tmp_path / "file" / "a.png")


def test_no_pyplot_and_the_users_style_comes_back(tmp_path):
    # In a process of its own: another test may have imported pyplot.
    code = (
        "import sys, at_jax.figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from at_jax.figures import canvas\n"
        "import matplotlib; matplotlib.rcParams['font.size'] = 31.0\n"
        "with canvas.style():\n"
        "    figure, axes = canvas.figure(1, 1)\n"
        "    assert axes[0, 0].set_title('a').get_size() == 10.0\n"
        f"    canvas.save(figure, {str(tmp_path / 'a.png')!r})\n"
        "assert matplotlib.rcParams['font.size'] == 31.0\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"} | {"MPLBACKEND": "TkAgg"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
