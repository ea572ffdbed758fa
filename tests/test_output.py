"""Output that disappears: no error, the same exit code, and no line in a file of the program."""

import errno
import io
import os
import pathlib
import subprocess
import sys

import pytest

from at_jax.training import console, progress_report

REPOSITORY = pathlib.Path(__file__).parents[1]
# Prints more than the buffers hold, while the reader may be gone, and opens a file as a checkpoint would.
PROGRAM = """
import os, sys
from at_jax import output
output.secure()
file = open(sys.argv[1], "wb", buffering=0)
for line in range(3000):
    print(f"line {line} \\N{GREEK SMALL LETTER BETA}", flush=line % 3 == 0)
    print("error", "x" * 100, file=sys.stderr)
print("unflushed", end="")
os.write(1, b"raw")
os.write(2, b"raw")
file.write(b"whole")
sys.exit(5)
"""
REDIRECTIONS = ["| head -c 100", "| true", ">&-", "> /dev/full", "2>&-", "2> /dev/full", ">&- 2>&-",
                "> /dev/full 2>&1", "<&- >&- 2>&-"]  # fmt: skip


@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_output_that_disappears_changes_nothing(tmp_path, redirection):
    if "full" in redirection and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    file = tmp_path / "file"
    words = f'"{sys.executable}" -c \'{PROGRAM}\' "{file}" 2>"{tmp_path}/err" {redirection}'
    command = f"{words}; echo ${{PIPESTATUS[0]}} > {tmp_path}/code"
    subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True)
    assert (tmp_path / "code").read_text() == "5\n"
    assert file.read_bytes() == b"whole"
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert "Exception" not in (tmp_path / "err").read_text()


class Gone(io.StringIO):
    def write(self, text):
        raise OSError(errno.EIO, "the terminal is gone")


@pytest.mark.parametrize("stream", [None, "closed", "gone"])
def test_log_and_progress_of_the_library_survive(tmp_path, monkeypatch, stream):
    # A program that is not ours: its streams are as they are.
    streams = {"closed": io.StringIO(), "gone": Gone()}
    streams["closed"].close()
    monkeypatch.setattr(sys, "stdout", streams.get(stream))
    monkeypatch.setattr(sys, "stderr", streams.get(stream) if stream != "closed" else None)
    console.log("a line")
    settings = {"name": "net", "evaluated_on": "test", "steps": 2, "first": 0, "tensorboard": False}
    with progress_report.ProgressReport(tmp_path, **settings) as report:
        report.steps(1, 0.5)
        report.epoch(
            {"epoch": 1, "step": 2, "loss": 0.5, "train_error": 1.0, "test_error": 2.0,
             "images_per_second": 3.0},
            1,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [("> /dev/full", 1, "error: the output could not be written: No space left on device\n"),
     ("| true", 0, ""), (">&-", 0, "")],
)  # fmt: skip
def test_command_that_only_prints_reports_lost_output(redirection, code, message):
    program = (
        "import sys, types\nfrom at_jax.cli import commands, main\n"
        "stand_in = types.SimpleNamespace(main=lambda rest: print('9.5 %') or 0)\n"
        "commands.importlib = types.SimpleNamespace(import_module=lambda name: stand_in)\n"
        "sys.exit(main(name='predict'))"
    )
    command = f'"{sys.executable}" -c "{program}" {redirection}; echo ${{PIPESTATUS[0]}} >&2'
    done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stderr == f"{message}{code}\n"
