"""Figures that a run draws at its end; drawing never fails the run."""

import re
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run
import tiny
from own_modules import Tapped, Tokens, Untapped
from PIL import Image

from at_jax import agreement, checkpoint, data, loop
from at_jax.errors import UserError
from at_jax.figures import attention, images, run_figures
from at_jax.terms import AttentionTransfer
from at_jax.training.files import run_files


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr(run_figures, "log", lines.append)
    return lines


def test_a_finished_run_has_figures_of_sane_size(finished):
    for workdir in (finished[0], finished[0] / "teacher"):
        for name, width in (("attention.png", 400), ("curves.png", 800)):
            with Image.open(workdir / name) as picture:
                assert picture.format == "PNG" and picture.width > width
            assert 10_000 < (workdir / name).stat().st_size < 500_000
        text = (workdir / "report.html").read_text()
        assert text.count("data:image/png;base64,") == 4  # each for wide and for narrow windows
        assert ("Agreement" in text) == (workdir == finished[0])
        assert not list(workdir.glob(".*tmp"))


def test_images_of_a_run_that_have_moved_are_found_with_data_dir(finished, monkeypatch):
    asked = []

    def load(settings):
        asked.append(settings.data_dir)
        raise UserError("no images: set --config.data.data_dir=DIR to them")

    monkeypatch.setattr(images.datasets, "load_dataset", load)
    monkeypatch.setattr(images.datasets, "check_moved", lambda source, data_dir: None)
    for given in ("", "elsewhere"):
        with pytest.raises(UserError, match="no images: set --data_dir DIR to them"):
            images.dataset_of(finished[0], given)
    assert asked == ["", "elsewhere"]


def test_the_agreement_on_the_page_is_that_of_the_networks(finished):
    workdir, result, _ = finished
    test = images.dataset_of(workdir).test
    pixels = test.take(np.arange(len(test)))[0]
    found = []
    for where in (workdir, workdir / "teacher"):
        module, variables, description = checkpoint.open_run(where)
        normalized = data.normalize(pixels, description["mean"], description["std"])
        found.append(attention.logits_and_mappings(module, variables, normalized, (("sum", 2),)))
    (logits_s, (maps_s,)), (logits_t, (maps_t,)) = found
    text = (workdir / "report.html").read_text()
    same = np.mean(logits_s.argmax(-1) == logits_t.argmax(-1))
    assert f"top-1 agreement</td><td>{100 * same:.2f} %" in text
    (nats,) = re.findall(r"([\d.]+) nats", text)
    assert float(nats) == pytest.approx(agreement.divergence(logits_s, logits_t).mean(), abs=2e-4)
    (r,) = re.findall(r"maps at group3</td><td>([\d.-]+)", text)
    expected = agreement.correlation(maps_s["group3"], maps_t["group3"]).mean()
    assert float(r) == pytest.approx(expected, abs=1e-3)
    wrong = np.mean(logits_s.argmax(-1) != test.labels)
    assert 100 * wrong == pytest.approx(result["test_error"])


def _small(tmp_path, student=None, method="none", arguments=(), **changes):
    config = small_run.config(
        method=method, epochs=1, data__train_examples=20, optimizer__drop_epochs=(), **changes
    )
    student = student or Tapped()
    return loop.train_and_evaluate(config, tmp_path, student=student, **dict(arguments))


def test_figures_can_be_turned_off(tmp_path, compiled_once, logged):
    _small(tmp_path, runtime__figures=False)
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob("*.html")) and not logged


def test_without_matplotlib_a_run_logs_one_line(tmp_path, compiled_once, logged, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = _small(tmp_path, runtime__figures=True)
    (line,) = logged
    pattern = r"no figures \(.*needs matplotlib, .*: pip .*\): --config.runtime.figures=False .*"
    assert re.fullmatch(pattern, line)
    assert run_files.read_result(tmp_path) == result


def test_an_error_in_drawing_is_one_line(finished, finished_copy, logged, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(run_figures.curves, "draw", fail)
    monkeypatch.setattr(run_figures, "_is_drawn", lambda *_: False)
    result = loop.train_and_evaluate(small_run.config(runtime__figures=True), finished_copy)
    assert result == finished[1]
    assert logged
    for line in logged:  # of the student, and of the teacher if its run is drawn again
        assert line.startswith("no figures (RuntimeError: two lines): --config.runtime.figures")


def test_a_user_defined_module_is_drawn_and_only_once(tmp_path, compiled_once, logged):
    _small(tmp_path, runtime__figures=True)
    page = tmp_path / "report.html"
    before = page.stat().st_mtime_ns
    _small(tmp_path, runtime__figures=True)
    assert page.stat().st_mtime_ns == before
    (tmp_path / "curves.png").unlink()
    _small(tmp_path, runtime__figures=True)
    assert (tmp_path / "curves.png").exists() and page.stat().st_mtime_ns > before and not logged
    assert "Tapped, labels only" in page.read_text()


@pytest.mark.parametrize("module", [Untapped(), Tokens()])
def test_a_network_without_feature_maps_has_a_page_without_maps(
    tmp_path, compiled_once, logged, module
):
    _small(tmp_path, student=module, runtime__figures=True)
    assert not logged and (tmp_path / "report.html").read_text().count("base64,") == 2
    assert not (tmp_path / "attention.png").exists()


def _teacher(module):
    return module, tiny.jit(module.init)(jax.random.key(1), jnp.zeros((1, 16, 16, 1)))


def test_a_teacher_of_other_classes_is_drawn_at_submodule_paths(tmp_path, compiled_once, logged):
    _small(
        tmp_path,
        student=Untapped(),
        method="at",
        arguments={"teacher": _teacher(Tapped(classes=7))},
        transfer__points=("layer<-only",),
        runtime__figures=True,
    )
    text = (tmp_path / "report.html").read_text()
    assert not logged and (tmp_path / "attention.png").exists()
    assert "not defined (different classes)" in text and "top-1" not in text
    assert re.search(r"maps at layer and the teacher&#x27;s only</td><td>-?[\d.]+", text)


class Scaled(nn.Module):
    """A network whose input is scaled by a keyword argument, which has no default."""

    @nn.compact
    def __call__(self, images, *, train=False, scale=None):
        assert scale is not None or self.is_initializing() or not train
        factor = jnp.zeros(images.shape[:1]) if scale is None else scale
        return Tapped(name="net")(images * factor[:, None, None, None], train=train)


class ScaledTransfer(AttentionTransfer):
    """Attention transfer that also passes the student a number from the teacher."""

    name = "scaled"

    def forward_inputs(self, teacher):
        return {"scale": jnp.ones(teacher.logits.shape[:1])}


def test_inputs_from_the_teacher_reach_the_student_that_is_drawn(tmp_path, compiled_once, logged):
    result = _small(
        tmp_path,
        student=Scaled(),
        method="at",
        arguments={"teacher": _teacher(Tapped()), "terms": {ScaledTransfer(): 1.0}},
        runtime__figures=True,
    )
    text = (tmp_path / "report.html").read_text()
    assert not logged, logged
    # The diagonal of the confusion table: predictions are those that were evaluated.
    rows = re.findall(r"<tr><th>\d</th>(.*?)</tr>", text)
    counts = [[int(x or 0) for x in re.findall(r"<td[^>]*>(\d*)</td>", row)] for row in rows]
    error = 100 * (1 - np.trace(np.array(counts)) / np.sum(counts))
    assert error == pytest.approx(result["test_error"])
