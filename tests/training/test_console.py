"""Console output and TensorBoard events."""

import sys

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from at_jax import models
from at_jax.training import description, progress_report, tensorboard


def test_network_table_of_a_wide_resnet_lists_layers_and_the_total():
    lines = description.network_table(models.build("wrn_16_1"), (32, 32, 3)).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["conv0", "group1_block0", "group1_block1"]
    # 3x3 from 3 to 16 channels, no bias.
    assert lines[1].split() == ["conv0", "Conv", "32x32x16", "432"]
    assert lines[-1].split() == ["total", "175,066"]
    in_rows = sum(int(line.split()[-1].replace(",", "")) for line in lines[1:-1])
    assert in_rows == 175_066


class Odd(nn.Module):
    """Submodules that return a tuple, or nothing with a shape."""

    @nn.compact
    def __call__(self, images, *, train=False):
        pair = _Pair(name="pair")(images)
        _Word(name="word")()
        return nn.Dense(10, name="out")(jnp.mean(pair[0], axis=(1, 2)))


class _Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x, x


class _Word(nn.Module):
    @nn.compact
    def __call__(self):
        return "word"


class _NoParameters(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        return jnp.mean(images, axis=(1, 2))


def test_network_table_of_unusual_modules_is_complete():
    lines = description.network_table(Odd(), (8, 8, 3)).splitlines()
    assert lines[1].split() == ["pair", "_Pair", "8x8x3", "0"]
    assert lines[2].split() == ["word", "_Word", "0"]
    assert lines[-1].split() == ["total", "40"]  # 3 * 10 + 10
    assert description.network_table(_NoParameters(), (8, 8, 3)).split()[-2:] == ["total", "0"]


LINE = {
    "epoch": 1,
    "step": 5,
    "loss": 0.5,
    "train_error": 50.0,
    "test_error": 25.0,
    "images_per_second": None,
}


class Clock:
    """Stands in for the time module."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_report, "time", clock)
    return clock


@pytest.fixture
def make(tmp_path):
    def make(**changes):
        settings = {
            "name": "net",
            "evaluated_on": "test",
            "steps": 10,
            "first": 0,
            "tensorboard": False,
        }
        return progress_report.ProgressReport(tmp_path, **{**settings, **changes})

    return make


def test_report_prints_at_most_one_line_in_five_seconds_and_the_last(make, capsys, clock):
    with make() as report:
        for epoch in range(1, 6):
            clock.now += 2.6
            report.epoch({**LINE, "epoch": epoch, "images_per_second": 100.0}, epochs=6)
        report.epoch({**LINE, "epoch": 6, "images_per_second": 100.0}, epochs=6)
    lines = capsys.readouterr().out.splitlines()
    # The first, those 5.2 seconds after another, and the last.
    assert [line.split()[1] for line in lines] == ["1/6", "3/6", "5/6", "6/6"]
    assert "test error 25.00 %" in lines[0]
    assert "100 images/s" in lines[0]


def test_report_without_a_speed_prints_compiling(make, capsys):
    with make(evaluated_on="validation", label="a/b") as report:
        report.epoch(LINE, epochs=1)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("a/b  epoch 1/1  loss 0.5  train error 50.00 %")
    assert "validation error 25.00 %  compiling" in line


def test_report_on_a_terminal_shows_the_bar(make, capsys, monkeypatch):
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    with make():
        pass
    out, err = capsys.readouterr()
    assert out == "" and "net:" in err and "/10" in err


def test_eta_excludes_compilation_of_training_and_evaluation(make, capsys, clock):
    with make(steps=20) as report:
        clock.now += 60  # compiles the training step
        report.steps(1, 0.5)
        clock.now += 8
        report.steps(5, 0.5)
        clock.now += 30  # compiles the evaluation
        report.epoch(LINE, epochs=4)
        clock.now += 15  # an epoch of 5 steps, evaluation included
        report.steps(10, 0.5)
        report.epoch({**LINE, "epoch": 2, "step": 10}, epochs=4)
        clock.now += 30
        report.steps(20, 0.5)
        report.epoch({**LINE, "epoch": 4, "step": 20}, epochs=4)
    etas = [line.split("ETA ")[1] for line in capsys.readouterr().out.splitlines()]
    # 4 steps in 8 s: 15 steps in 30 s. 5 steps in 15 s: 10 steps in 30 s. Nothing remains.
    assert etas == ["0:30", "0:30", "0:00"]


def test_eta_of_steps_reported_in_bursts_counts_from_the_end_of_the_first(make, capsys, clock):
    with make(steps=40) as report:
        for last in (10, 20):
            clock.now += 5
            for done in range(last - 9, last + 1):
                report.steps(done, 0.5)
        report.epoch({**LINE, "step": 20}, epochs=2)
    # 10 steps in 5 s: 20 steps in 10 s.
    assert capsys.readouterr().out.splitlines()[-1].endswith("ETA 0:10")


def test_eta_of_a_resumed_run_counts_only_its_own_steps(make, capsys, clock):
    with make(steps=20, first=10) as report:
        report.steps(12, 0.5)
        clock.now += 6
        report.steps(15, 0.5)
        report.epoch({**LINE, "epoch": 3, "step": 15}, epochs=4)
    # 3 steps in 6 s: 5 steps in 10 s.
    assert capsys.readouterr().out.splitlines()[-1].endswith("ETA 0:10")


def test_eta_is_omitted_when_all_steps_are_reported_at_once(make, capsys, clock):
    with make() as report:
        for done in range(1, 6):
            report.steps(done, 0.5)
        clock.now += 30
        report.epoch(LINE, epochs=2)
    assert "ETA" not in capsys.readouterr().out


def read_events(path):
    """Parse an event file: length (8 bytes), its checksum (4), the message, its checksum (4)."""
    data, events = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return events


def values_of(path):
    return {
        value.tag: (event.step, value)
        for event in read_events(path)
        for value in event.summary.value
    }


def test_events_hold_scalars_and_the_config(make, tmp_path):
    line = {**LINE, "loss/at": 0.25, "learning_rate": 0.1, "beta": 3.0, "beta/at": 3.0}
    with make(tensorboard=True, config_text="method: at") as report:
        report.epoch(line, epochs=2)
    (path,) = tmp_path.glob("events*")
    values = values_of(path)
    scalars = {
        tag: value.simple_value
        for tag, (_, value) in values.items()
        if value.HasField("simple_value")
    }
    assert scalars == {
        "train/loss": 0.5,
        "train/loss/at": 0.25,
        "train/error": 50,
        "train/learning_rate": pytest.approx(0.1),
        "train/beta": 3,
        "train/beta/at": 3,
        "eval/error": 25,
    }
    step, text = next(pair for tag, pair in values.items() if tag.startswith("config"))
    assert step == 0 and text.tensor.string_val == [b"```\nmethod: at\n```"]


def test_events_of_a_resumed_run_keep_those_before_its_first_step(make, tmp_path):
    with make(tensorboard=True) as report:
        report.epoch(LINE, epochs=2)
    (path,) = tmp_path.glob("events*")
    assert values_of(path)["eval/error"][0] == 5
    path.unlink()
    with make(tensorboard=True, first=5):
        pass
    (path,) = tmp_path.glob("events*")
    # TensorBoard discards earlier events from this step on: those of step 5 stay.
    assert [event.step for event in read_events(path) if event.HasField("session_log")] == [6]


def test_event_files_sort_by_start_after_the_clock_went_back(make, tmp_path, monkeypatch):
    names = []
    for now in (2000000000, 1900000000, 1900000000):  # seconds; the last two in one
        monkeypatch.setattr(tensorboard.time, "time", lambda now=now: now)
        with make(tensorboard=True, first=len(names)):
            pass
        names += [p.name for p in tmp_path.glob("events*") if p.name not in names]
    # TensorBoard reads the files in the order of their names.
    assert len(names) == 3 and names == sorted(names)


def test_write_image_after_the_run_discards_no_event(make, tmp_path):
    picture = tmp_path / "attention.png"
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(picture)
    with make(tensorboard=True) as report:
        report.epoch(LINE, epochs=2)
    tensorboard.write_image(tmp_path, "eval/attention", picture, 5)
    (path,) = tmp_path.glob("events*.image")
    step, value = values_of(path)["eval/attention"]
    assert (step, value.image.height, value.image.width) == (5, 2, 3)
    assert not any(event.HasField("session_log") for event in read_events(path))


def test_report_without_tensorboardx_names_the_fix(make, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with make(tensorboard=True) as report:
        report.epoch(LINE, epochs=1)
    tensorboard.write_image(tmp_path, "eval/attention", tmp_path / "missing.png", 5)
    assert "pip install tensorboardX" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
