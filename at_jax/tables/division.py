"""How the runs of a table are divided: shards over machines, groups over programs."""

import itertools
from collections.abc import Sequence

from at_jax import settings
from at_jax.tables.plan import Cell
from at_jax.tables.runner import checkpointed_steps


def shard(cells: list[Cell], text: str, together: int) -> list[Cell]:
    """The part of the cells that ``I/N`` names, whole groups, with the teachers that it needs.

    Args:
      cells: all runs of a table.
      text: ``"I/N"``, I from 1.
      together: the size of a group.

    Returns:
      Cells, teachers before their students.

    Raises:
      ValueError: if the text says otherwise.
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"--shard must be I/N with 1 <= I <= N, got {text!r}: for example 1/4")
    needed = {cell.needs for cell in cells}
    students = [cell for cell in cells if cell.workdir not in needed]
    mine = {
        cell.name
        for group in groups(students, together)[int(index) - 1 :: int(count)]
        for cell in group
    }
    # A teacher is everybody's: who comes first trains it, and the others wait for it.
    wanted = {cell.needs for cell in cells if cell.name in mine}
    return [cell for cell in cells if cell.name in mine or cell.workdir in wanted]


def groups(cells: Sequence[Cell], size: int) -> list[list[Cell]]:
    """Cut cells into groups that one program can train: of one pair and one order of images.

    Students that learn from nobody go with those of the pair that they stand beside. Seeds have orders
    of their own, unless data.order_seed says otherwise: then the methods of a seed go together.

    Args:
      cells: students, no teachers.
      size: at most so many in a group.

    Returns:
      The groups, as even as can be, in the order of their first cells.
    """
    if size == 1:
        return [[cell] for cell in cells]
    alike: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        alike.setdefault((cell.row.pair, settings.order_seed(cell.config)), []).append(cell)
    return [part for members in alike.values() for part in _evenly(members, size)]


def _evenly(cells: list[Cell], size: int) -> list[list[Cell]]:
    count = -(-len(cells) // size)
    bounds = [round(part * len(cells) / count) for part in range(count + 1)]
    return [cells[start:end] for start, end in itertools.pairwise(bounds)]


def groups_to_resume(cells: Sequence[Cell], size: int) -> list[list[Cell]]:
    """As :func:`groups`, but none goes back for another's sake: they are split by how far they are."""
    result = []
    for group in groups(cells, size):
        steps = {cell.name: checkpointed_steps(cell.workdir) or [0] for cell in group}
        common = max(set.intersection(*map(set, steps.values())), default=-1)
        # A kill leaves those of one program a checkpoint apart: they meet at the last that all have.
        if all(common in each[-2:] for each in steps.values()):
            result.append(group)
        else:
            newest = sorted({each[-1] for each in steps.values()})
            result += [[c for c in group if steps[c.name][-1] == step] for step in newest]
    return result
