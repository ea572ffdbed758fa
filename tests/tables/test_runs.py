"""Tables that are trained: the files they leave, and resuming after an interruption or a kill."""

import json
import os
import re
import shutil
import signal

import commands
import pytest
import small_run

from at_jax import loop
from at_jax.tables import command as program
from at_jax.tables import registry

NONE, AT = "wrn_10_0.25-none", "wrn_10_0.25-wrn_10_0.5-at"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, compiled_once, make_tiny_table):
    """The tiny table, one seed, trained: its folder."""
    out = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.TABLES, "tiny", make_tiny_table)
        assert program.main(["tiny", "--out", str(out), "--seeds", "1"]) == 0
    return out


def copy_without(trained, out, *names):
    """Copy a trained table without some of its runs, and without the record in which they are done."""
    shutil.copytree(trained, out)
    (out / "table.json").unlink()
    for name in names:
        shutil.rmtree(out / "runs" / name)
    for path in out.rglob("config.json"):  # the teacher is in the copy
        path.write_text(path.read_text().replace(str(trained), str(out)))
    return out


def without_clock(numbers):
    """table.json without the entries that differ from start to start."""
    text = json.dumps(numbers)
    return re.sub(r'"(finished|wall_seconds|commit|run|teacher)": ("[^"]*"|[\d.]+|null)', "", text)


def test_command_leaves_a_table_with_figures(trained, read_table):
    numbers = read_table(trained)
    for row in numbers["rows"]:
        (seed,) = row["seeds"]
        result = json.loads((trained / "runs" / row["name"] / "seed0" / "result.json").read_text())
        assert seed["test_error"] == result["test_error"] == seed["errors"][-1] == row["median"]
        assert seed["epochs"] == 2 and len(seed["errors"]) == 2
        assert seed["wall_seconds"] > 0 and "cpu" in seed["device"]
    none, at = numbers["rows"]
    assert none["seeds"][0]["errors"] != at["seeds"][0]["errors"]
    # The teacher is trained once.
    teachers = [path.name for path in (trained / "runs" / "teachers").iterdir() if path.is_dir()]
    assert teachers == ["wrn_10_0.5"]
    assert "| `at` |" in (trained / "table.md").read_text()
    for name in ("errors.png", "curves.png"):
        assert 3_000 < (trained / name).stat().st_size < 300_000


class InterruptAfterEpoch:
    """A callback that sends Ctrl-C when an epoch has ended."""

    def on_epoch(self, metrics):
        os.kill(os.getpid(), signal.SIGINT)

    def on_end(self, result):
        pass


def test_command_resumes_after_an_interruption(
    trained, tiny_table, tmp_path, monkeypatch, read_table
):
    out = copy_without(trained, tmp_path / "copy", f"{AT}/seed0")
    original = loop.train_and_evaluate

    def interrupted(config, workdir):
        return original(config, workdir, callbacks=(InterruptAfterEpoch(),))

    command = ["tiny", "--out", str(out), "--seeds", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_and_evaluate", interrupted)
        assert program.main(command) == 130
    assert read_table(out)["rows"][1]["missing"] == [0]
    assert (out / "runs" / AT / "seed0" / "metrics.jsonl").read_text().count("\n") == 1
    assert program.main(command) == 0
    assert without_clock(read_table(out)) == without_clock(read_table(trained))


@pytest.mark.slow
def test_command_together_trains_groups_by_the_same_orders_of_images(
    trained, tiny_table, tmp_path, read_table
):
    out = copy_without(trained, tmp_path / "copy", f"{NONE}/seed0", f"{AT}/seed0")
    assert program.main(["tiny", "--out", str(out), "--seeds", "1", "--together"]) == 0
    for row, other in zip(read_table(out)["rows"], read_table(trained)["rows"], strict=True):
        (seed,), (alone,) = row["seeds"], other["seeds"]
        assert (seed["trained_together"], alone["trained_together"]) == (2, 1)
        losses = [
            json.loads(path.read_text().partition("\n")[0])["loss"]
            for path in (
                folder / "runs" / row["name"] / "seed0" / "metrics.jsonl"
                for folder in (out, trained)
            )
        ]
        # The same images, in another program. The networks drift apart where a ReLU switches.
        assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert "Up to 2 students were trained in one program" in (out / "table.md").read_text()


@pytest.mark.slow
def test_command_shards_and_a_merge_repeat_the_numbers(trained, tiny_table, tmp_path, read_table):
    out = tmp_path / "shards"
    for arguments in (["--shard", "1/2"], ["--shard", "2/2"], ["--merge"]):
        assert program.main(["tiny", "--out", str(out), "--seeds", "1", *arguments]) == 0
    assert without_clock(read_table(out)) == without_clock(read_table(trained))


@pytest.mark.slow
def test_command_after_kill_9_ends_with_the_same_table(tmp_path, read_table):
    arguments = [
        "digits", "--rows", "wrn_10_1-none,*-at", "--epochs", "12", "--seeds", "1",
        "--set", "runtime.checkpoint_every=1", "--set", "runtime.tensorboard=False",
        "--set", "runtime.devices=1",
    ]  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    row = cut / "runs" / "wrn_10_1-wrn_16_2-at" / "seed0"

    def command(out):
        return ["-m", "at_jax.tables", *arguments, "--out", out]

    (killed,) = commands.start(commands.held(os.environ, row, 8), command(cut))
    try:
        commands.wait_until(lambda: small_run.count_lines(row), killed)
    finally:
        killed.kill()
        killed.communicate()
    assert not (row / "result.json").exists()
    for out in (whole, cut):
        ((code, _, err),) = commands.run(os.environ, command(out))
        assert code == 0, err
    assert without_clock(read_table(cut)) == without_clock(read_table(whole))
    assert [len(row["seeds"]) for row in read_table(cut)["rows"]] == [1, 1]


def test_runs_that_another_command_begins_meanwhile_are_named(
    fake_training, tmp_path, monkeypatch, capsys
):
    def train(config, workdir):
        fake_training.train_and_evaluate(config, workdir)
        other = tmp_path / "runs" / AT / "seed7"
        other.mkdir(parents=True, exist_ok=True)
        (other / "config.json").write_text("{}")

    monkeypatch.setattr(loop, "train_and_evaluate", train)
    options = ["tiny", "--rows", "none", "--seeds", "1", "--out", str(tmp_path)]
    assert program.main(options) == 0
    line = f"Not in the table: {AT}/seed7, which another command has begun"
    assert line in capsys.readouterr().out
