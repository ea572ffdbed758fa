"""Division of a table's runs: shards for several machines, groups for one program."""

import itertools
from collections.abc import Sequence

from at_jax.errors import UserError
from at_jax.tables.changes import OF_ROWS
from at_jax.tables.plan import RunSpec
from at_jax.training.config import flatten, order_seed, settings_of
from at_jax.training.files import checkpoint_meta

__all__ = ["groups", "resumable_groups", "shard"]


def shard(specs: list[RunSpec], text: str, together: int) -> list[RunSpec]:
    """Select the runs of one shard: whole groups, and the teachers that they need.

    Args:
      specs: all runs of a table.
      text: ``"I/N"``, shard I of N, counted from 1.
      together: size of a group.

    Returns:
      Runs, teachers before their students.

    Raises:
      UserError: if the text is not of that form.
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UserError(
            f"--shard must be I/N with 1 <= I <= N, got {text!r}: for example --shard 1/4"
        )
    teachers = {spec.teacher_workdir for spec in specs}
    students = [spec for spec in specs if spec.workdir not in teachers]
    mine = {
        spec.name
        for group in groups(students, together)[int(index) - 1 :: int(count)]
        for spec in group
    }
    # Every shard lists the teachers it needs: the first one trains a teacher, the others wait for it.
    needed = {spec.teacher_workdir for spec in specs if spec.name in mine}
    return [spec for spec in specs if spec.name in mine or spec.workdir in needed]


def groups(specs: Sequence[RunSpec], size: int) -> list[list[RunSpec]]:
    """Divide runs into groups that one program can train: the same pair, images, and order of images.

    Students trained on labels only join the pair that they are listed with. Each seed has its own order of
    images, unless data.order_seed sets one for all: then the runs of all seeds can share a program.

    Args:
      specs: students, no teachers.
      size: largest size of a group.

    Returns:
      Groups of nearly equal size, in the order of their first runs.
    """
    if size == 1:
        return [[spec] for spec in specs]
    compatible: dict[tuple[str, ...], list[RunSpec]] = {}
    for spec in specs:
        assert spec.row is not None, "teachers are trained alone"
        values = flatten(spec.config.to_dict())
        order = order_seed(settings_of(spec.config))
        # Keys in which rows may differ, and students of one program may not.
        key = (spec.row.pair, repr([order, *(values[each] for each in OF_ROWS)]))
        compatible.setdefault(key, []).append(spec)
    return [part for members in compatible.values() for part in _split_evenly(members, size)]


def _split_evenly(specs: list[RunSpec], size: int) -> list[list[RunSpec]]:
    count = -(-len(specs) // size)
    bounds = [round(part * len(specs) / count) for part in range(count + 1)]
    return [specs[start:end] for start, end in itertools.pairwise(bounds)]


def resumable_groups(specs: Sequence[RunSpec], size: int) -> list[list[RunSpec]]:
    """Divide runs as :func:`groups` does, and split groups whose runs have different progress."""
    result = []
    for group in groups(specs, size):
        divided = checkpoint_meta.resumable_groups([spec.workdir for spec in group])
        result += [[group[index] for index in part] for part in divided]
    return result
