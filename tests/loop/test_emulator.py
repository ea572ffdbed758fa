"""A run in gs:// from train.py, with gcsfs and Orbax's own driver, against an emulator on this machine."""

import importlib.util
import json
import re

import commands
import pytest
import storage

RUN = "gs://bucket/run"
MISSING = [
    name for name in ("gcsfs", "gcp_storage_emulator") if importlib.util.find_spec(name) is None
]
ALONE = [
    f"--config={commands.REPOSITORY}/configs/digits.py:student=wrn_10_0.25,method=none",
    "--config.batch_size=20",
    "--config.data.train_examples=40",
    "--config.runtime.figures=False",
    "--config.runtime.checkpoint_every=1",
]
COMPARE = """
import sys, jax, numpy as np
from at_jax import checkpoint
jax.tree.map(np.testing.assert_array_equal, *(checkpoint.load(path)[1] for path in sys.argv[1:]))
"""


def lines_of(text):
    lines = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"pip install {' '.join(MISSING)}")
def test_run_in_gs_is_killed_resumed_evaluated_and_loaded(tmp_path, compiled):
    program = commands.REPOSITORY / "train.py"
    with storage.Emulator() as emulator:
        environment = commands.environment(compiled) | emulator.environment

        def run(*command):
            ((code, out, err),) = commands.run(environment, command)
            assert code == 0, err
            return out

        (killed,) = commands.start(
            commands.held(environment, RUN, 10),
            [program, *ALONE, "--config.epochs=12", f"--workdir={RUN}"],
        )
        commands.wait_until(
            lambda: (emulator.read("run/metrics.jsonl") or b"").count(b"\n") >= 4, killed
        )
        killed.kill()
        killed.communicate()
        assert len(lines_of(emulator.read("run/metrics.jsonl"))) < 12
        out = run(program, *ALONE, "--config.epochs=12", f"--workdir={RUN}")
        assert re.search(r"Resuming after step \d+ of 24", out)
        local = tmp_path / "local"
        run(program, *ALONE, "--config.epochs=12", f"--workdir={local}")
        resumed, whole = emulator.read("run/metrics.jsonl"), (local / "metrics.jsonl").read_text()
        assert lines_of(resumed) == lines_of(whole)
        result = json.loads(emulator.read("run/result.json"))
        out = run(program, "--evaluate", f"--workdir={RUN}")
        assert f"in {RUN}: test error {result['test_error']:.2f} %" in out
        run("-c", COMPARE, RUN, local)
        # A damaged checkpoint is renamed, and the one before it is used.
        emulator.delete("run/checkpoints/24/params/manifest.ocdbt")
        out = run(program, *ALONE, "--config.epochs=13", f"--workdir={RUN}")
        assert "Resuming after step 22 of 26" in out
        assert any(name.startswith("run/checkpoints/damaged-24/") for name in emulator.names())
        # As a teacher, and in a figure.
        teacher = [f"--config.teacher.checkpoint={RUN}", "--config.method=at", "--config.epochs=1"]
        run(program, *ALONE, *teacher, "--workdir=gs://bucket/student")
        run("-m", "at_jax.figures", "curves", RUN, "--out=gs://bucket/curves.png")
        assert emulator.read("curves.png").startswith(b"\x89PNG")
        assert any("events" in name for name in emulator.names())
    assert not (commands.REPOSITORY / "gs:").exists()
