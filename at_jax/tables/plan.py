"""The runs of a table: its rows and the command-line options, expanded into configs and workdirs."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import ml_collections

from at_jax import paths, terms
from at_jax.errors import UserError
from at_jax.tables import changes as key_changes
from at_jax.tables.changes import Change
from at_jax.tables.messages import naming_options
from at_jax.tables.rows import Row, Table, path_part
from at_jax.training.config import flatten, settings_of, teacher_config
from at_jax.training.settings import Settings

__all__ = [
    "RUNS", "TEACHERS", "TEACHER_SEED", "RunSpec", "common_config", "expand", "is_teacher_given",
    "scale_schedule",
]  # fmt: skip

# A teacher is trained once, with this seed, and shared by all students.
TEACHER_SEED = 0
# Keys that give the teacher, and the placeholders of their values in a command.
TEACHERS = {"teacher.checkpoint": "RUN", "teacher.weights": "FILE"}
# Folder of the runs, in the folder of the table.
RUNS = "runs"


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """One run of a table.

    Attributes:
      name: path of the workdir below ``runs/``, such as ``"wrn_16_1-none/seed0"``.
      config: of the run.
      workdir: of the run.
      row: of the table; None for a teacher that is not also a row.
      teacher_workdir: of the run of this table that is the teacher, and must be finished first; None
        without a teacher, or with one that the user gives.
    """

    name: str
    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    row: Row | None
    teacher_workdir: pathlib.Path | None = None

    @property
    def seed(self) -> int:
        """Seed of the run, which numbers the runs of a row from 0."""
        return self.config.seed


def is_teacher_given(settings: Settings) -> bool:
    """Whether the user gives the teacher of all rows; otherwise the table trains its teachers."""
    return bool(settings.teacher.checkpoint or settings.teacher.weights)


def scale_schedule(config: ml_collections.ConfigDict, epochs: int) -> ml_collections.ConfigDict:
    """Change the number of epochs, and scale every schedule in proportion.

    Args:
      config: not modified.
      epochs: of the student. The epochs of a teacher that has its own number are scaled too.

    Returns:
      A new config. Drops that fall on the same epoch are merged, and drops outside the run are removed:
      drops happen at whole epochs only.

    >>> from at_jax.training.config import default_config
    >>> scale_schedule(default_config(), 10).optimizer.drop_epochs
    (3, 6, 8)
    """
    result = ml_collections.ConfigDict(config.to_dict())
    factor = epochs / config.epochs

    def drops(before: Sequence[int], end: int) -> tuple[int, ...]:
        scaled = {_nearest(drop * factor) for drop in before}
        return tuple(sorted(drop for drop in scaled if 1 <= drop < end))

    result.epochs = epochs
    result.optimizer.warmup_epochs = config.optimizer.warmup_epochs * factor
    result.optimizer.drop_epochs = drops(config.optimizer.drop_epochs, epochs)
    result.transfer.decay_epochs = drops(config.transfer.decay_epochs, epochs)
    for section in ("transfer", *terms.TERMS):
        begin = config[section].begin_epoch  # below 0: the value of transfer.begin_epoch
        result[section].begin_epoch = _begin(begin * factor, epochs) if begin > 0 else begin
    if config.teacher.epochs:
        result.teacher.epochs = max(1, _nearest(config.teacher.epochs * factor))
        result.teacher.drop_epochs = drops(config.teacher.drop_epochs, result.teacher.epochs)
    return result


def _nearest(epoch: float) -> int:
    # Halves round up. Python's round would send 2.5 to 2 and 3.5 to 4.
    return int(epoch + 0.5)


def _begin(epoch: float, epochs: int) -> int:
    """Nearest epoch at which a term can begin."""
    return min(_nearest(epoch), epochs - 1)


def common_config(
    table: Table, *, epochs: int = 0, source: str = "", changes: Iterable[Change] = ()
) -> ml_collections.ConfigDict:
    """Build the config that all rows of a table share.

    Args:
      table: of the registry, or of a config.
      epochs: number of epochs; 0 for the table's own.
      source: an image folder or a TFDS name; empty for the table's own data.
      changes: result of :func:`at_jax.tables.changes.resolve`; those for all rows are applied last.

    Returns:
      The config, checked.

    Raises:
      UserError: for a missing folder or an invalid value.
    """
    config = table.config()
    config.runtime.figures = False  # the table has its own figures
    config.compare = ()  # and its own rows
    if source:
        is_folder = paths.reachable(source).is_dir()
        is_path = paths.scheme(source) or source.startswith(("/", ".", "~"))
        if not is_folder and is_path:
            is_file = paths.reachable(source).is_file()
            raise UserError(
                f"--data must be a folder or a TFDS name, got {source!r}, which "
                f"{'is a file' if is_file else 'does not exist'}: give an existing folder"
            )
        config.data.source = "folder" if is_folder else "tfds"
        config.data.data_dir = source if is_folder else ""
        config.data.name = "" if is_folder else source
    if epochs:
        config = scale_schedule(config, epochs)
    config.update_from_flattened_dict(key_changes.values(changes))
    _check(config)
    return config


def expand(
    table: Table,
    rows: Sequence[Row],
    common: ml_collections.ConfigDict,
    seeds: int,
    out: pathlib.Path,
    changes: Sequence[Change] = (),
) -> list[RunSpec]:
    """List the runs of some rows: first the teachers, then seed 0 of every row, seed 1 of every row, ...

    A teacher with the same config as a row with method ``none`` is that row's run. There are no teachers
    to train if the user gives one (``teacher.checkpoint`` or ``teacher.weights``).

    Args:
      table: of the registry, or of a config.
      rows: chosen rows of the table.
      common: result of :func:`common_config`.
      seeds: number of seeds, from 0.
      out: folder of the table.
      changes: result of :func:`at_jax.tables.changes.resolve`; they override those of a row.

    Returns:
      Runs with unique names, every teacher before its students.

    Raises:
      UserError: for a row with an invalid config.
    """

    def spec_of(row: Row, seed: int) -> RunSpec:
        name = f"{row.name}/seed{seed}"
        config = _row_config(table, row, common, seed, changes)
        return RunSpec(name, config, out / RUNS / name, row)

    unique: dict[str, Row] = {}
    for row in rows:
        unique.setdefault(row.name, row)
    students = [spec_of(row, seed) for seed in range(seeds) for row in unique.values()]
    # From all rows of the table: the place of a teacher must not depend on the chosen rows.
    labels_only = {}
    for row in table.rows:
        # Not the trials of a search: values that are added later must not move a teacher.
        if row.method == "none" and not row.tried and table.has_fixed_rows:
            spec = spec_of(row, TEACHER_SEED)
            labels_only[_training_key(spec.config)] = spec
    teachers: dict[str, RunSpec] = {}
    is_given = is_teacher_given(settings_of(common))
    for row in () if is_given else unique.values():
        if terms.needs_teacher(row.method) and row.teacher not in teachers:
            config, name = _teacher_config(row, common), f"teachers/{path_part(row.teacher)}"
            own = RunSpec(name, config, out / RUNS / name, None)
            teachers[row.teacher] = labels_only.get(_training_key(config), own)
    specs = {}
    for spec in (*teachers.values(), *students):
        if spec.row and terms.needs_teacher(spec.row.method) and not is_given:
            teacher = teachers[spec.row.teacher].workdir
            spec.config.teacher.checkpoint = str(teacher)
            spec = dataclasses.replace(spec, teacher_workdir=teacher)
        _check(spec.config, spec.row.tried if spec.row else ())
        specs[spec.name] = spec
    return list(specs.values())


def _row_config(
    table: Table, row: Row, common: ml_collections.ConfigDict, seed: int, changes: Sequence[Change]
) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(common.to_dict())
    config.student, config.method, config.seed = row.student, row.method, seed
    if terms.needs_teacher(row.method):
        # Without a teacher the key keeps its value: the run is the same with every teacher of the table.
        config.teacher.model = row.teacher
    config.update_from_flattened_dict(_scaled(table, row, common.epochs))
    config.update_from_flattened_dict(key_changes.values(changes, row))
    if not terms.needs_teacher(row.method):
        config.teacher.checkpoint = config.teacher.weights = ""
    return config


def _scaled(table: Table, row: Row, epochs: int) -> dict[str, Any]:
    """Changes of a row. Epochs scale with the schedule, except those that a search tries."""
    begins = {k for k in row.changes if k.endswith(".begin_epoch") and k not in row.tried}
    factor = epochs / table.config().epochs if begins else 1.0
    return {
        key: _begin(value * factor, epochs) if key in begins else value
        for key, value in row.changes.items()
    }


def _teacher_config(row: Row, common: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(common.to_dict())
    config.teacher.model, config.method = row.teacher, row.method
    result = teacher_config(config)
    result.seed = TEACHER_SEED
    return result


def _training_key(config: ml_collections.ConfigDict) -> str:
    """Equal for configs without a teacher that train the same network in the same way."""
    relevant = {k: v for k, v in config.to_dict().items() if k not in ("teacher", "runtime")}
    return repr(sorted(flatten(relevant).items()))


def _check(config: ml_collections.ConfigDict, tried: Iterable[str] = ()) -> None:
    with naming_options(tried):
        settings_of(config)
