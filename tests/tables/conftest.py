"""A table of the smallest runs, and a stand-in for training that takes milliseconds."""

import pathlib
import shutil
import types
import uuid

import pytest
import small_run

from at_jax import loop
from at_jax.tables import command as program
from at_jax.tables import plots, registry
from at_jax.tables.paper import PaperResult
from at_jax.tables.rows import Row, Table
from at_jax.training import dry_run
from at_jax.training.files import json_files, run_files

# Result of the checks before a run, as far as the tables read it.
_NO_TEACHER = types.SimpleNamespace(teacher=None)
STUDENT, TEACHER = "wrn_10_0.25", "wrn_10_0.5"


def _make_tiny_table() -> Table:
    """Two rows; the paper "reports" a result for one of them."""

    def config():
        return small_run.config().copy_and_resolve_references()

    rows = (
        Row(STUDENT, TEACHER, "none", label="none", paper=PaperResult(8.77, "verified")),
        Row(STUDENT, TEACHER, "at", label="at"),
    )
    return Table("A tiny table", config, rows)


@pytest.fixture(scope="session")
def make_tiny_table():
    """The entry of the tiny table in the registry."""
    return _make_tiny_table


@pytest.fixture
def tiny_table(monkeypatch, make_tiny_table):
    """The tiny table, registered by the name "tiny"."""
    monkeypatch.setitem(registry.TABLES, "tiny", make_tiny_table)
    return make_tiny_table()


class FakeTraining:
    """Writes the files of a finished run at once.

    The test error is 30 for the teacher, 20 + seed for labels only, and 10 + seed for a method.

    Attributes:
      calls: names of the workdirs of every program, in order.
      failures: method to the exception that its runs raise.
    """

    def __init__(self):
        self.calls: list[list[str]] = []
        self.failures: dict[str, Exception] = {}

    def train_and_evaluate(self, config, workdir):
        """In place of loop.train_and_evaluate."""
        self.calls.append([self._name(workdir)])
        self._finish(config, workdir, together=1)

    def train_together(self, runs):
        """In place of loop.train_together."""
        self.calls.append([self._name(workdir) for _, workdir in runs])
        for config, workdir in runs:
            self._finish(config, workdir, together=len(runs))

    @staticmethod
    def _name(workdir: pathlib.Path) -> str:
        return "/".join(workdir.parts[-2:])

    def _finish(self, config, workdir, *, together):
        identity = {"run": uuid.uuid4().hex}
        run_files.claim(workdir, config.to_dict(), identity=identity)
        if failure := self.failures.get(config.method):
            raise failure
        base = 10.0 if config.method != "none" else 20.0 if config.student == STUDENT else 30.0
        errors = [90.0, base + config.seed]
        for epoch, error in enumerate(errors, 1):
            line = {"epoch": epoch, "step": 3 * epoch, "test_error": error}
            run_files.append_metrics(workdir, line)
        result = {
            "method": config.method, "seed": config.seed, "epochs": config.epochs,
            "test_error": errors[-1], "best_test_error": errors[-1], "wall_seconds": 10.0 * together,
            "trained_together": together, "device": "1 x cpu", "versions": {"jax": "0.0"},
            "commit": "abc", "finished": "2026-01-02T03:04:05",
            "teacher_test_error": 30.0 if config.teacher.checkpoint else None,
        }  # fmt: skip
        run_files.write_json(workdir / run_files.RESULT, result)


@pytest.fixture
def fake_training(monkeypatch, tiny_table):
    """Replaces training, for tests of what surrounds it."""
    fake = FakeTraining()
    monkeypatch.setattr(loop, "train_and_evaluate", fake.train_and_evaluate)
    monkeypatch.setattr(loop, "train_together", fake.train_together)
    # It traces the loss for a second.
    monkeypatch.setattr(dry_run, "check", lambda *_, **__: _NO_TEACHER)
    return fake


@pytest.fixture(scope="session")
def read_table():
    """Reads table.json of a folder."""
    return lambda out: json_files.read(out / "table.json")


@pytest.fixture
def committed(fake_training, tmp_path, monkeypatch):
    """A folder with the table.json of seed 0, and no runs."""
    monkeypatch.setattr(plots, "draw", lambda *_: [])
    assert program.main(["tiny", "--out", str(tmp_path), "--seeds", "1"]) == 0
    shutil.rmtree(tmp_path / "runs")
    fake_training.calls.clear()
    return tmp_path


@pytest.fixture
def own_config(tmp_path):
    """The path of a config file of the user."""
    path = tmp_path / "study.py"
    path.write_text(
        "import small_run\n\n"
        "def get_config(parts=None):\n"
        '    return small_run.config(method="at").copy_and_resolve_references()\n'
    )
    return path


@pytest.fixture
def run_own(own_config, tmp_path):
    """Runs the command on that config, with the table in ``out``."""

    def command(*options):
        return program.main([f"--config={own_config}", "--out", str(tmp_path / "out"), *options])

    return command
