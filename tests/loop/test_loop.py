"""Whole runs on the digits, in this process, on the four virtual devices of conftest.py."""

import hashlib
import json
import pathlib
import re
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_run

from at_jax import checkpoint, loop
from at_jax.training import profiling, trainer
from at_jax.training.components import datasets, optimizers
from at_jax.training.config import settings_of
from at_jax.training.files import run_files


def digest(folder: pathlib.Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_run_writes_its_files(finished):
    workdir, result, _ = finished
    names = {path.name for path in workdir.iterdir()}
    assert {"config.json", "metrics.jsonl", "result.json", "checkpoints", "teacher"} <= names
    assert {"attention.png", "curves.png", "report.html"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    lines = [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["step"] for line in lines] == [3, 6]
    assert set(lines[0]) == {
        "epoch", "step", "loss", "loss/cross_entropy", "loss/attention", "learning_rate", "beta",
        "train_error", "test_error", "images_per_second",
    }  # fmt: skip
    # The rate drops at the start of epoch 1 (from 0): the first line has the first rate.
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.1, 0.02])
    for line in lines:
        total = line["loss/cross_entropy"] + line["beta"] * line["loss/attention"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    stored = run_files.read_result(workdir)
    assert stored == result
    assert result["test_error"] == lines[-1]["test_error"]
    assert result["best_test_error"] == min(line["test_error"] for line in lines)
    assert 0 <= result["teacher_test_error"] <= 100
    assert {"parameters", "epochs", "seed", "images_per_second", "wall_seconds", "device"} <= set(
        result
    )


def test_run_logs_network_transfer_and_errors(finished):
    workdir, result, said = finished
    text = "\n".join(said)
    assert "training the teacher, wrn_10_0.5, first" in text
    assert re.search(r"group3_block0\s+WideResNetBlock\s+4x4x16", text)
    assert "transfer: student group3 4x4x16 <- teacher group3" in text
    assert "Warning" not in text and result["constant_student"] is False
    teacher, student, where = said[-3:]
    assert teacher == f"teacher error  {result['teacher_test_error']:.2f} %"
    assert f"{result['test_error']:.2f} %" in student
    assert where == f"Results written to {workdir}"


def test_evaluate_repeats_the_errors_of_the_run(finished):
    workdir, result, _ = finished
    errors = loop.evaluate(small_run.config(), workdir)
    assert errors == {k: pytest.approx(result[k]) for k in ("test_error", "best_test_error")}


def test_profiler_trace_of_a_run_that_fails_is_closed(finished, tmp_path, monkeypatch):
    class Failing:
        def on_epoch(self, metrics):
            raise RuntimeError("of a callback")

        def on_end(self, result):
            pass

    calls = []
    monkeypatch.setattr(profiling, "_SKIPPED_STEPS", 0)
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    with pytest.raises(RuntimeError, match="of a callback"):
        loop.train_and_evaluate(
            small_run.with_teacher(finished), tmp_path, callbacks=[Failing()], profile=True
        )
    assert calls == ["start", "stop"]  # JAX has one trace at a time: a later run could start none


def test_finished_run_is_not_trained_again(finished, finished_copy):
    before = small_run.lines_of(finished_copy)
    assert loop.train_and_evaluate(small_run.config(), finished_copy) == finished[1]
    assert small_run.lines_of(finished_copy) == before


def test_teacher_checkpoint_is_unchanged_and_gives_the_same_student(finished, tmp_path):
    before = digest(finished[0] / "teacher" / "checkpoints")
    loop.train_and_evaluate(small_run.with_teacher(finished), tmp_path)
    assert digest(finished[0] / "teacher" / "checkpoints") == before
    assert not (tmp_path / "teacher").exists()
    # And the same teacher gives the same student.
    assert small_run.lines_of(tmp_path) == small_run.lines_of(finished[0])


@pytest.mark.parametrize(
    "steps_before", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))]
)
def test_resumed_run_equals_the_uninterrupted_one(finished, tmp_path, monkeypatch, steps_before):
    """Interrupted within an epoch, at its end, and within the next one."""
    asked = iter([False] * steps_before + [True] * 100)

    class Once:  # in place of signals, which test_end_to_end.py sends
        def __enter__(self):
            return lambda: next(asked)

        def __exit__(self, *_):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "interruptible", Once)
        with pytest.raises(loop.Interrupted, match="Stopped after step .* of 6, saved in"):
            loop.train_and_evaluate(small_run.with_teacher(finished), tmp_path)
    result = loop.train_and_evaluate(small_run.with_teacher(finished), tmp_path)
    assert small_run.lines_of(tmp_path) == small_run.lines_of(finished[0])
    differing = ("checksum", "images_per_second", "wall_seconds", "finished")
    same = {k: v for k, v in result.items() if k not in differing}
    assert same.items() <= finished[1].items()
    for which in ("latest", "best"):
        ours, theirs = (checkpoint.load(w, which=which)[1] for w in (tmp_path, finished[0]))
        chex.assert_trees_all_equal(ours, theirs)


def test_run_stopped_by_a_callback_is_finished_with_fewer_epochs(finished, tmp_path):
    class Enough(Exception):
        pass

    class StopsAfterTwo:
        def on_epoch(self, metrics):
            if metrics["epoch"] == 2:
                raise Enough

        def on_end(self, result):
            raise AssertionError("not called")

    config = small_run.with_teacher(finished, epochs=4, runtime__checkpoint_every=100)
    with pytest.raises(Enough):
        loop.train_and_evaluate(config, tmp_path / "run", callbacks=[StopsAfterTwo()])
    assert len(small_run.lines_of(tmp_path / "run")) == 2
    assert (tmp_path / "run" / "checkpoints" / "6").exists()  # saved, 2 epochs of 3 steps
    short = small_run.with_teacher(finished, epochs=2)
    result = loop.train_and_evaluate(short, tmp_path / "run")
    assert result["epochs"] == 2
    loop.train_and_evaluate(short, tmp_path / "whole")
    assert small_run.lines_of(tmp_path / "run") == small_run.lines_of(tmp_path / "whole")


def test_more_epochs_continue_a_finished_run(finished, tmp_path):
    loop.train_and_evaluate(small_run.with_teacher(finished), tmp_path)
    result = loop.train_and_evaluate(small_run.with_teacher(finished, epochs=3), tmp_path)
    assert result["epochs"] == 3
    assert [line["epoch"] for line in small_run.lines_of(tmp_path)] == [1, 2, 3]
    assert small_run.lines_of(tmp_path)[:2] == small_run.lines_of(finished[0])


@pytest.mark.parametrize(
    "method",
    [
        "at+kd",
        "gradient_at+kd",
        *(
            pytest.param(method, marks=pytest.mark.slow)
            for method in ("none", "kd", "f_actt", "min_l2+flip_symmetry", "jacobian+sobolev")
        ),
    ],
)
def test_method_trains_with_its_terms(finished, tmp_path, method):
    alone = method in ("none", "min_l2+flip_symmetry")
    config = small_run.config if alone else lambda **c: small_run.with_teacher(finished, **c)
    result = loop.train_and_evaluate(config(method=method, epochs=1), tmp_path)
    (line,) = small_run.lines_of(tmp_path)
    terms = {key for key in line if key.startswith("loss/")}
    hard = "distillation" if "kd" in method else "cross_entropy"
    soft = {
        "at+kd": {"loss/attention"},
        "f_actt": {"loss/activation"},
        "min_l2+flip_symmetry": {"loss/min_l2", "loss/flip_symmetry"},
        "gradient_at+kd": {"loss/gradient_at"},
        "jacobian+sobolev": {"loss/jacobian", "loss/sobolev"},
    }.get(method, set())
    assert terms == {f"loss/{hard}"} | soft
    norms = {key for key in line if key.startswith("gradient_norm_")}
    assert all(line[norm] > 0 for norm in norms)
    assert norms == {
        "gradient_at+kd": {
            "gradient_norm_student/gradient_at",
            "gradient_norm_teacher/gradient_at",
        },
        "min_l2+flip_symmetry": {f"gradient_norm_student/{k}" for k in ("min_l2", "flip_symmetry")},
        "jacobian+sobolev": {
            f"gradient_norm_{network}/{k}"
            for network in ("student", "teacher")
            for k in ("jacobian", "sobolev")
        },
    }.get(method, set())
    assert all(line[term] > 0 for term in terms) and line["beta"] >= 0
    assert (result["teacher_test_error"] is None) == alone
    assert not (tmp_path / "teacher").exists()


@pytest.mark.slow
def test_accumulation_with_several_steps_per_dispatch_trains(finished, tmp_path):
    changes = {"accumulation": 5, "runtime__steps_per_dispatch": 2, "dtype": "bfloat16"}
    config = small_run.with_teacher(finished, **changes)
    result = loop.train_and_evaluate(config, tmp_path)
    assert 0 <= result["test_error"] <= 100
    assert [line["step"] for line in small_run.lines_of(tmp_path)] == [
        3,
        6,
    ]  # dispatches of 2 and 1


@pytest.mark.slow
def test_steps_per_dispatch_leaves_the_metrics(finished, tmp_path):
    loop.train_and_evaluate(
        small_run.with_teacher(finished, runtime__steps_per_dispatch=3), tmp_path
    )
    for ours, theirs in zip(
        small_run.lines_of(tmp_path), small_run.lines_of(finished[0]), strict=True
    ):
        for key, value in theirs.items():
            assert ours[key] == pytest.approx(value, rel=1e-3, abs=2.0 if "error" in key else 1e-3)


def test_exploding_loss_raises_non_finite_and_keeps_the_last_good_checkpoint(
    finished, tmp_path, monkeypatch
):
    loop.train_and_evaluate(small_run.with_teacher(finished, epochs=1), tmp_path)
    good = checkpoint.load(tmp_path)[1]
    # A rate beyond the bound of the config key, which would be refused.
    monkeypatch.setattr(optimizers, "learning_rate", lambda *_: optax.constant_schedule(1e30))
    config = small_run.with_teacher(finished, epochs=4)
    message = (
        r"step \d+: .*(loss|state).* not finite; the checkpoint of step 3 is kept .*: lower opt"
    )
    with pytest.raises(loop.NonFinite, match=message):
        loop.train_and_evaluate(config, tmp_path)
    chex.assert_trees_all_equal(checkpoint.load(tmp_path)[1], good)


def test_teacher_of_nan_stops_the_run_with_the_term_and_the_remedy(finished, tmp_path):
    module, variables = checkpoint.load(finished[0] / "teacher")
    spoiled = jax.tree.map(lambda x: x.at[0].set(jnp.nan) if x.ndim == 4 else x, variables)
    message = (
        "step 1: loss and loss/attention are not finite; no checkpoint has been saved yet in .*: the "
        "teacher's variables are not finite: use another teacher"
    )
    with pytest.raises(loop.NonFinite, match=message):
        loop.train_and_evaluate(small_run.config(), tmp_path, teacher=(module, spoiled))


@pytest.mark.parametrize("asked", [3, 4], ids=["before saving", "while saving"])
def test_interrupt_at_the_last_step_of_the_teacher_stops_the_run(tmp_path, monkeypatch, asked):
    class AtTheEnd:  # of the teacher's three steps: asked before each, after them, after the checkpoint
        def __enter__(self):
            answers = iter([0] * asked)
            return lambda: next(answers, signal.SIGTERM)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(trainer, "interruptible", AtTheEnd)
    with pytest.raises(loop.Interrupted, match="Stopped after step 3 of 3") as caught:
        loop.train_and_evaluate(small_run.config(), tmp_path)
    assert caught.value.exit_code == 143
    assert not (tmp_path / "metrics.jsonl").exists()


def test_evaluate_uses_the_test_set_despite_validation_examples(finished, tmp_path):
    config = small_run.config(method="none", epochs=1, data__validation_examples=100)
    loop.train_and_evaluate(config, tmp_path)
    found = loop.evaluate(config, tmp_path)
    # The same test set without the split.
    whole = small_run.config(method="none", epochs=1, data__validation_examples=0)
    assert found == loop.evaluate(whole, tmp_path)
    # In units of one of 355 images.
    assert found["test_error"] * 3.55 == pytest.approx(round(found["test_error"] * 3.55))


def test_validation_examples_replace_the_test_set(finished, tmp_path):
    config = small_run.config(method="none", epochs=1, data__validation_examples=100)
    dataset = datasets.load_dataset(settings_of(config).data)
    assert (len(dataset.test), len(dataset.train)) == (100, 60)
    result = loop.train_and_evaluate(config, tmp_path)
    assert result["evaluated_on"] == "validation"
    # 100 images: errors are whole percents.
    assert result["test_error"] == pytest.approx(round(result["test_error"]))


def test_evaluate_counts_every_image_once_for_any_batch_size(finished):
    workdir, result, _ = finished
    for batch_size in (4, 20, 400):
        config = small_run.config(batch_size=batch_size)
        assert loop.evaluate(config, workdir)["test_error"] == pytest.approx(result["test_error"])
    assert np.isclose(result["test_error"] * 355 / 100, round(result["test_error"] * 355 / 100))
