"""What a person sees: the table, the lines, the events."""

import flax.linen as nn
import jax.numpy as jnp
import pytest

from at_jax import models, report


def test_the_table_of_a_network():
    lines = report.network_table(models.build("wrn_16_1"), (32, 32, 3)).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["conv0", "group1_block0", "group1_block1"]
    # 3x3 from 3 to 16 channels, no bias.
    assert lines[1].split() == ["conv0", "Conv", "32x32x16", "432"]
    assert lines[-1].split() == ["in", "all", "175,066"]
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


def test_the_table_of_an_odd_network():
    text = report.network_table(Odd(), (8, 8, 3))
    assert "pair" in text
    assert text.splitlines()[-1].split()[-1] == "40"  # 3 * 10 + 10


LINE = {
    "epoch": 1,
    "step": 5,
    "loss": 0.5,
    "train_error": 50.0,
    "test_error": 25.0,
    "images_per_second": None,
}


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
        return report.Report(tmp_path, **{**settings, **changes})

    return make


def test_lines_come_at_the_end_and_now_and_then(make, capsys):
    with make() as shown:
        for epoch in (1, 2, 3):
            shown.epoch({**LINE, "epoch": epoch, "images_per_second": 100.0}, epochs=3)
    lines = capsys.readouterr().out.splitlines()
    # The first and the last; the second followed the first within seconds.
    assert [line.split()[1] for line in lines] == ["1/3", "3/3"]
    assert "test error 25.00 %" in lines[0]
    assert "100 images/s" in lines[0]


def test_a_speed_that_is_not_known_yet(make, capsys):
    with make(evaluated_on="validation") as shown:
        shown.epoch(LINE, epochs=1)
    out = capsys.readouterr().out
    assert "validation error 25.00 %" in out
    assert "images/s" not in out


def test_events_of_a_resumed_run_keep_the_epochs_before(make, tmp_path):
    with make(tensorboard=True) as shown:
        shown.epoch(LINE, epochs=2)
    (events,) = tmp_path.glob("events*")
    assert b"test_error" in events.read_bytes()
    with make(tensorboard=True, first=5) as shown:
        # TensorBoard drops events from this step on, and step 5 stays.
        assert shown._events.purge_step == 6
