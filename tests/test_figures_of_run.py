"""What a run draws when it ends, and that drawing never stops it."""

import json
import re
import sys

import numpy as np
import pytest
import small_run
from own_modules import Tapped, Untapped
from PIL import Image

from at_jax import agreement, checkpoint, data, inputs, loop
from at_jax.figures import attention, of_run, summary


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(of_run, "say", lines.append)
    return lines


def test_a_finished_run_leaves_its_pictures(finished):
    for workdir in (finished[0], finished[0] / "teacher"):
        for name, width in (("attention.png", 500), ("curves.png", 800)):
            with Image.open(workdir / name) as picture:
                assert picture.format == "PNG" and picture.width > width
        text = (workdir / "report.html").read_text()
        assert text.count("data:image/png;base64,") == 2
        assert ("Agreement" in text) == (workdir == finished[0])
        assert not list(workdir.glob(".*tmp"))


def test_the_agreement_on_the_page_is_that_of_the_networks(finished):
    workdir, result, _ = finished
    test = inputs.load_data(small_run.config()).test
    seen = []
    for where in (workdir, workdir / "teacher"):
        module, variables, described = checkpoint.open_run(where)
        images = data.normalize(test.images, described["mean"], described["std"])
        seen.append(attention.answers_and_maps(module, variables, images))
    (logits_s, maps_s), (logits_t, maps_t) = seen
    text = (workdir / "report.html").read_text()
    same = np.mean(logits_s.argmax(-1) == logits_t.argmax(-1))
    assert f"{100 * same:.2f} %" in text
    (nats,) = re.findall(r"([\d.]+) nats", text)
    assert float(nats) == pytest.approx(agreement.divergence(logits_s, logits_t).mean(), abs=2e-4)
    (r,) = re.findall(r"maps at group3</td><td>([\d.-]+)", text)
    expected = agreement.correlation(maps_s["group3"], maps_t["group3"]).mean()
    assert float(r) == pytest.approx(expected, abs=1e-3)
    wrong = np.mean(logits_s.argmax(-1) != test.labels)
    assert 100 * wrong == pytest.approx(result["test_error"])


def _small(tmp_path, student=None, **more):
    config = small_run.config(
        method="none", epochs=1, data__train_examples=20, optimizer__drop_epochs=(), **more
    )
    return loop.train_and_evaluate(config, tmp_path, student=student or Tapped())


def test_drawing_can_be_turned_off(tmp_path, compiled_once, said):
    _small(tmp_path, runtime__figures=False)
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob("*.html")) and not said


def test_without_matplotlib_a_run_says_one_line_and_goes_on(
    tmp_path, compiled_once, said, monkeypatch
):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = _small(tmp_path, runtime__figures=True)
    (line,) = said
    assert re.fullmatch(
        r"no pictures \(.*needs matplotlib: pip .*\): --config.runtime.figures=False .*", line
    )
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_an_error_in_drawing_is_one_line(finished, said, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(of_run.curves, "draw", fail)
    monkeypatch.setattr(of_run, "_is_drawn", lambda *_: False)
    result = loop.train_and_evaluate(small_run.config(runtime__figures=True), finished[0])
    assert result == finished[1]
    assert len(said) == 2 and said[0] == said[1]  # the teacher's, the student's
    assert said[0].startswith("no pictures (RuntimeError: two lines): --config.runtime.figures")


def test_a_module_of_the_users_own_is_drawn_and_only_once(tmp_path, compiled_once, said):
    _small(tmp_path, runtime__figures=True)
    page = tmp_path / "report.html"
    before = page.stat().st_mtime_ns
    _small(tmp_path, runtime__figures=True)
    assert page.stat().st_mtime_ns == before
    (tmp_path / "curves.png").unlink()
    _small(tmp_path, runtime__figures=True)
    assert (tmp_path / "curves.png").exists() and page.stat().st_mtime_ns > before and not said


def test_a_network_without_taps_gets_a_page_without_maps(tmp_path, compiled_once, said):
    _small(tmp_path, student=Untapped(), runtime__figures=True)
    assert not said and (tmp_path / "report.html").read_text().count("base64,") == 1
    assert not (tmp_path / "attention.png").exists()


class Answers:
    """A network that reads its answer out of the image's first pixel."""

    def __init__(self, shift):
        self.shift, self.description = shift, {"num_classes": 3}

    def look(self, images):
        named = (images[:, 0, 0, 0] + self.shift) % 3
        return np.eye(3)[named], {"only": images[..., 0].astype(float)}


def test_every_image_counts_once_and_many_are_thinned_out():
    images = np.zeros((7, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = [0, 1, 2, 0, 1, 2, 0]
    images[:, 1, 1, 0] = 9
    split = data.Split(images, np.array([0, 1, 2, 0, 1, 2, 1], np.int32))
    found = summary.measure(Answers(0), Answers(0), split, batch=3, most=100)
    # The last one, of class 1, is taken for class 0.
    np.testing.assert_array_equal(found.confusion, [[2, 0, 0], [1, 2, 0], [0, 0, 2]])
    assert found.agreement.top1 == 1 and found.agreement.divergence == 0
    assert found.agreement.correlation == {"only": pytest.approx(1)}
    other = summary.measure(Answers(0), Answers(1), split, batch=3, most=100)
    assert other.agreement.top1 == 0
    assert len(summary.measure(Answers(0), None, split, batch=2, most=4).predictions) == 4
