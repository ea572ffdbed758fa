"""Settings of matplotlib, colors, and PNG files."""

import io
import itertools
import os
import subprocess
import sys

import pytest
from PIL import Image

from at_jax import terms
from at_jax.errors import UserError
from at_jax.figures import style

METHODS = ("none", *terms.TERMS, "at+kd", "gradient_at+kd")


def _rgb(color):
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def _size(path):
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return image.size


def test_colors_of_methods_differ_from_one_another_and_from_the_teacher():
    colors = [terms.color(method) for method in METHODS] + [style.TEACHER_COLOR]
    for a, b in itertools.combinations(colors, 2):
        distance = sum((x - y) ** 2 for x, y in zip(*map(_rgb, (a, b)), strict=True))
        assert distance > 50**2, (a, b)


def test_titles_of_methods_are_words():
    assert terms.title("none") == "labels only"
    assert not any("_" in terms.title(method) for method in METHODS)


def test_save_writes_a_whole_file_and_nothing_else(tmp_path):
    with style.context():
        figure, axes = style.figure(3, 2, rows=2, columns=3)
        assert axes.shape == (2, 3)
        axes[0, 0].set_title("costs $5 and $6")  # no formula
        style.save(figure, tmp_path / "new" / "a.png")
    assert _size(tmp_path / "new" / "a.png") == (330, 220)  # 110 pixels an inch
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_save_reduces_the_resolution_of_large_figures(tmp_path):
    with style.context():
        figure, _ = style.figure(48, 2)
        style.save(figure, tmp_path / "a.png")
    assert _size(tmp_path / "a.png") == (2400, 100)
    with style.context():  # one that is read from top to bottom keeps it
        figure, _ = style.figure(4, 100)
        style.save(figure, tmp_path / "a.png")
    assert _size(tmp_path / "a.png") == (440, 11000)


def test_stacked_png_has_figures_below_one_another():
    with style.context():
        wide, _ = style.figure(3, 1)
        high, _ = style.figure(2, 2)
        content = style.stacked_png([wide, high])
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("PNG", (330, 330))


def test_save_to_an_invalid_path_raises(tmp_path):
    figure, _ = style.figure(1, 1)
    with pytest.raises(UserError, match=r"figures are PNG files, got 'a\.svg'"):
        style.save(figure, "a.svg")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        style.save(figure, tmp_path / "file" / "a.png")


def test_context_without_matplotlib_raises(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r'drawing needs matplotlib, which is not installed: pip install "at_jax\[figures\]"'
    with pytest.raises(UserError, match=message), style.context():
        pass


def test_context_restores_the_users_settings_and_needs_no_pyplot(tmp_path):
    # In a process of its own: another test may have imported pyplot.
    code = (
        "import sys, at_jax.figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from at_jax.figures import style\n"
        "import matplotlib; matplotlib.rcParams['font.size'] = 31.0\n"
        "with style.context():\n"
        "    figure, axes = style.figure(1, 1)\n"
        "    assert axes[0, 0].set_title('a').get_size() == 10.0\n"
        f"    style.save(figure, {str(tmp_path / 'a.png')!r})\n"
        "assert matplotlib.rcParams['font.size'] == 31.0\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"} | {"MPLBACKEND": "TkAgg"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
