"""Command lines of the benchmarks: runs on tiny networks, and bad flags."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(name, *flags):
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_double_backprop_with_two_rows_writes_record_table_and_chart(tmp_path):
    flags = ("--pair=wrn_10_0.25<-wrn_10_0.5", "--image_size=16", "--batch=4", "--rounds=2")
    rows = "gradient_at,gradient_at (forward over reverse)"
    done = run("double_backprop", *flags, f"--methods={rows}", "--devices=2", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "double_backprop.json").read_text())
    assert list(record["rows"]["JAX"]) == ["none", *rows.split(",")]
    plain, second, forward_over_reverse = record["rows"]["JAX"].values()
    assert forward_over_reverse["flop_ratio"] > second["flop_ratio"]
    assert plain["time_ratio"] == plain["flop_ratio"] == plain["predicted_ratio"] == 1
    assert second["passes"] == "6S - s + 2T" and len(second["samples"]) == 2
    # These networks are so narrow that elementwise work counts: close to the prediction, not equal.
    assert second["flop_ratio"] == pytest.approx(second["predicted_ratio"], rel=0.25)
    assert plain["slow_convolutions"] == second["slow_convolutions"] == 0
    assert record["device"] == "2 x cpu" and second["temporary_bytes"] > plain["temporary_bytes"]
    table = (tmp_path / "double_backprop.md").read_text()
    assert table.strip() in done.stdout and "| plain | 3S - s |" in table
    assert (tmp_path / "double_backprop.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_together_with_two_students_compares_three_programs(tmp_path):
    out = tmp_path / "together.json"
    flags = ("--pair=wrn_10_0.25<-wrn_10_0.25", "--image_size=16", "--batch=4", "--method=kd")
    done = run("together", *flags, "--students=2", "--rounds=1", "--devices=2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert list(result["seconds"]) == ["separate", "unrolled", "vmap"]
    assert result["ratios"]["separate"] == 1 and result["device"] == "2 x cpu"
    # Student and teacher are one network: 3S - s and S, of which S is shared by two students.
    predicted = result["predicted_ratios"]
    # (3.5S - s) / (4S - s): slightly below 3.5 / 4.
    assert 0.8 < predicted["unrolled"] < 3.5 / 4 and predicted["separate"] == 1
    assert f"| unrolled | {1e3 * result['seconds']['unrolled']:.0f} |" in done.stdout


@pytest.mark.slow
def test_host_overhead_of_a_tiny_network_prints_the_times_of_both_loops(tmp_path):
    out = tmp_path / "host.json"
    flags = ("--model=wrn_10_0.25", "--batch=4", "--steps=1", "--rounds=1")
    done = run("host_overhead", *flags, f"--out={out}")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result == json.loads(out.read_text())
    assert result["model"] == "wrn_10_0.25" and result["batch"] == 4
    assert 0 < result["host_work_ms"] < 1e3 * result["trainer_ms"]


PAIR = ("--pair=nin_thin<-nin_wide", "--image_size=16", "--batch=16")


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("double_backprop", "--methods=none,at_grad",
         "--methods must be among none, kd, .*got 'at_grad': did you mean"),
        ("double_backprop", "--pair=wrn_16_1", "--pair must be student<-teacher, got 'wrn_16_1'"),
        ("double_backprop", "--devices=3", "--batch must be a multiple of --devices=3, got 16"),
        ("double_backprop", "--batch=0", "--batch"),
        ("double_backprop", "again", "unknown argument 'again'"),
        ("together", "--method=at_kd", "method must be none, .*got 'at_kd'"),
        ("host_overhead", "--model=wrn_16", "wrn_16"),
        ("streaming", "--rounds=1", "expected --folder and --torch_python"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("double_backprop", "--methods=gradient_at (remat)",
                 "needs a student of blocks, got nin_thin"),
                ("double_backprop", "--pair=wrn_16_1<-wrn_17_1", r"wrn_17_1|6n ?\+ ?4"),
                ("double_backprop", "--pair=resnet_18<-resnet_18",
                 "images of at least 32x32 pixels"),
                ("double_backprop", "--pair=nin_thin<-resnet_18 --image_size=32 --methods=at",
                 "--pair must name networks with the same number of transfer points"),
                ("double_backprop", "--dtype=float16", "--dtype"),
                ("together", "--pair=wrn_16_1", "--pair must be student<-teacher, got 'wrn_16_1'"),
            )
        ),
    ],
)  # fmt: skip
def test_command_with_bad_flags_prints_one_line_and_exits_with_2(name, flags, message):
    given = [flags] if "(" in flags else flags.split(" ")
    done = run(name, *(PAIR if name not in ("host_overhead", "streaming") else ()), *given)
    assert done.returncode == 2
    assert not done.stdout
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.search(message, done.stderr)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name at least one kind of fault"),
        (["--kills=-1"], "kills"),
        (["x"], "unknown argument"),
    ],
)
def test_faults_with_bad_flags_is_one_line(flags, message):
    done = run("faults", *flags)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_faults_writes_a_table_of_what_was_tried(tmp_path):
    done = run("faults", "--kills=2", "--damages=2", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "faults.md").read_text()
    assert "| SIGKILL, and the same command again | 2 | 0 | " in table
    assert "| damage to one file, and the same command again | 2 | 0 | " in table
