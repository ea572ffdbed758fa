"""A table: its rows, and the config that they share."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections

from at_jax import terms
from at_jax.tables.paper import PAPER, PaperResult, Source

__all__ = ["Row", "Table", "by_pair", "path_part"]


def path_part(name: str) -> str:
    """The name of a network or of a row as part of a path: ``package:name`` without its colon.

    >>> path_part("my_package:Net-none")
    'my_package.Net-none'
    """
    return name.replace(":", ".")


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table, trained once per seed.

    Attributes:
      student: name of the network.
      teacher: name of the network; set for every row, also where the method needs no teacher.
      method: as in a config.
      changes: other config keys (dotted) that the row sets, and their values.
      variant: distinguishes rows of the same method in their names; may be empty.
      condition: what rows of the same pair have in common, for their heading; may be empty.
      label: name of the method in the table; by default the method, with the variant of a row without a
        condition.
      paper: the result in the paper; None if it reports none.
      tried: keys among the changes whose values a search tries: --set does not override them.
    """

    student: str
    teacher: str
    method: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variant: str = ""
    condition: str = ""
    label: str = ""
    paper: PaperResult | None = None
    tried: tuple[str, ...] = ()

    def __post_init__(self):
        parts = [self.method] if self.condition else [self.method, self.variant]
        # The class is frozen.
        object.__setattr__(self, "label", self.label or "-".join(filter(None, parts)))

    @property
    def name(self) -> str:
        """Name for ``--rows`` and for folders.

        >>> Row("wrn_16_1", "wrn_16_2", "at", variant="sum4").name
        'wrn_16_1-wrn_16_2-at-sum4'
        >>> Row("wrn_16_1", "wrn_16_2", "none").name
        'wrn_16_1-none'
        """
        teacher = [self.teacher] if terms.needs_teacher(self.method) else []
        parts = [self.student, *teacher, self.method, *filter(None, [self.variant])]
        return path_part("-".join(parts))

    @property
    def pair(self) -> str:
        """Student, teacher and condition, for headings: ``"wrn_16_1 <- wrn_16_2, 500 labels"``."""
        pair = f"{self.student} <- {self.teacher}"
        return f"{pair}, {self.condition}" if self.condition else pair


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: its rows and the config that they share.

    Attributes:
      title: one line.
      config: function that returns a new config, before the changes of a row.
      rows: in the order of the table. Rows of the same name (a student trained on labels only, listed
        with two teachers) are one run.
      teachers: name of a teacher to its result in the paper.
      paper_epochs: number of epochs in the paper; 0 if the paper has no such table or does not state it.
      held_out: number of training images on which a search measures.
      source: of the results that are called the paper's here.
      has_fixed_rows: whether every command has the same rows. A teacher may then be the run of a row.
    """

    title: str
    config: Callable[[], ml_collections.ConfigDict]
    rows: tuple[Row, ...]
    teachers: Mapping[str, PaperResult] = dataclasses.field(default_factory=dict)
    paper_epochs: int = 0
    held_out: int = 5000
    source: Source = PAPER
    has_fixed_rows: bool = True


def by_pair(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Group rows of table.json by their heading, in the order of the table.

    >>> by_pair([{"pair": "a <- b", "label": "at"}, {"pair": "a <- b", "label": "kd"}])
    {'a <- b': [{'pair': 'a <- b', 'label': 'at'}, {'pair': 'a <- b', 'label': 'kd'}]}
    """
    result: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        result.setdefault(row["pair"], []).append(row)
    return result
