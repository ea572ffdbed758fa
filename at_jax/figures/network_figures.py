"""Figures of networks: attention maps, input gradients, and the four mappings of the paper."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from at_jax.figures import grid, networks, pairing, style
from at_jax.figures.attention import check_taps, rms_normalize
from at_jax.figures.images import UNKNOWN, Images
from at_jax.figures.networks import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "MapGrid", "attention_grid", "captions", "formula", "gradient_figure", "mapping_figure",
]  # fmt: skip

_GUESSES = 3  # classes of an image whose true class is unknown
_NARROW_SIDE = 72  # pixels of a cell: an image, three maps and a caption fit a phone
# The mappings that the paper compares: kind and p.
_MAPPINGS = (("sum", 1), ("sum", 2), ("sum", 4), ("max", 1))


@dataclasses.dataclass(frozen=True, eq=False)
class MapGrid:
    """Content of a figure of maps.

    Attributes:
      images: one row each.
      columns: groups of maps.
      captions: lines on the left of each row.
      title: of the figure.
      note: below the grid.
    """

    images: Images
    columns: Sequence[grid.Column]
    captions: Sequence[Sequence[grid.Line]]
    title: str
    note: str

    def draw(self) -> "Figure":
        """Draw all groups next to each other."""
        given = self.images.shown, self.columns, self.captions
        return grid.draw(*given, title=self.title, note=self.note)

    def draw_narrow(self) -> list["Figure"]:
        """Draw a figure for each group, to be placed below one another; the note is below the last."""
        groups = list(dict.fromkeys(column.group for column in self.columns))
        return [
            grid.draw(
                self.images.shown,
                [column for column in self.columns if column.group == group],
                self.captions,
                title="",
                note=self.note if group == groups[-1] else "",
                most_side=_NARROW_SIDE,
            )
            for group in groups
        ]


def attention_grid(
    shown: Sequence[Network],
    images: Images,
    *,
    points: Sequence[str] = (),
    kind: str = "sum",
    p: float = 2,
    title: str,
    batch: int = 0,
) -> MapGrid:
    """Compute the maps of all networks at every transfer point.

    Args:
      shown: the student first; a teacher is titled so. Networks other than these two are drawn on the
        left of the student.
      images: one row each.
      points: ``transfer.points`` of the config.
      kind: ``"sum"`` or ``"max"``.
      p: exponent.
      title: of the figure.
      batch: see :meth:`Network.attention`.

    Raises:
      UserError: if the transfer points of two networks cannot be paired.
    """
    found = [
        network.attention(images.pixels, mappings=((kind, p),), batch=batch) for network in shown
    ]
    maps = [each for _, (each,) in found]
    check_taps(shown[0].module, maps[0])
    student = tuple(maps[0])
    partners = [
        pairing.partners(points, student, tuple(each), network)
        for network, each in zip(shown, maps, strict=True)
    ]
    columns = []
    for point in [s for s in student if all(s in paired for paired in partners)]:
        size = "x".join(map(str, maps[0][point].shape[1:]))
        for index in pairing.drawing_order(shown):
            other = partners[index][point]
            title_of = "" if _is_in_title(shown) else shown[index].title
            head = title_of if other == point else f"{title_of} {other}"
            q = rms_normalize(maps[index][other])
            columns.append(grid.Column(f"{point} ({size})", head, q))
    lines = captions(shown, [logits for logits, _ in found], images)
    note = f"Attention maps {formula(kind, p)} over the image."
    return MapGrid(images, columns, lines, title, note)


def gradient_figure(shown: Sequence[Network], images: Images, *, title: str) -> "Figure":
    """Draw ``|J|`` summed over channels, where J is the input gradient of the cross-entropy.

    Args:
      shown: the student first.
      images: one row each.
      title: of the figure.
    """
    found = []
    for network in shown:
        # A network with other classes has no label: None selects its predicted class.
        labels = images.labels if network.has_classes_of(shown[0]) else None
        found.append(network.input_gradient(images.pixels, labels))
    columns = [
        grid.Column("|J|, summed over channels", shown[i].title, rms_normalize(found[i][1]))
        for i in pairing.drawing_order(shown)
    ]
    return grid.draw(
        images.shown,
        columns,
        captions(shown, [logits for logits, _ in found], images),
        title=title,
        note="|J|: absolute input gradient of the cross-entropy, summed over channels.",
        opacity=1.0,
    )


def mapping_figure(shown: Sequence[Network], images: Images, *, title: str) -> "Figure":
    """Draw F_sum, F_sum^2, F_sum^4 and F_max of the first image, one row per transfer point.

    Args:
      shown: the student first.
      images: the first one is drawn.
      title: of the figure.
    """
    rows: list[list[grid.Line]] = []
    values: dict[str, list[np.ndarray]] = {formula(*mapping): [] for mapping in _MAPPINGS}
    logits = []
    images = Images(images.pixels[:1], images.shown[:1], images.labels[:1])
    for network in shown:
        each, found = network.attention(images.pixels, mappings=_MAPPINGS)
        check_taps(network.module, found[0])
        logits.append(each)
        for mapping, maps in zip(_MAPPINGS, found, strict=True):
            values[formula(*mapping)] += [rms_normalize(q)[0] for q in maps.values()]
        for name, q in found[0].items():
            size = "x".join(map(str, q.shape[1:]))
            rows.append([grid.Line(network.title, bold=True), grid.Line(f"{name} ({size})")])
    rows[0] = [*rows[0], *captions(shown, logits, images)[0]]
    return grid.draw(
        [images.shown[0]] * len(rows),
        [grid.Column(name, "", q) for name, q in values.items()],
        rows,
        title=title,
        note="Four mappings from activations to an attention map.",
    )


def captions(
    shown: Sequence[Network], logits: Sequence[np.ndarray], images: Images
) -> list[list[grid.Line]]:
    """Write the lines on the left of each row: the true class, and each trained network's prediction.

    Args:
      shown: the student first; its prediction marks the row.
      logits: of each network, ``(B, K)``.
      images: one row each.
    """
    student, rows = shown[0], []
    for row, label in enumerate(images.labels):
        is_known = label != UNKNOWN
        if _is_in_title(shown) and not is_known:
            rows.append(_guesses(student, logits[0][row]))
            continue
        lines = [grid.Line(student.class_name(label), bold=True)] if is_known else []
        for index in pairing.drawing_order(shown):
            network = shown[index]
            if network.title == networks.UNTRAINED:
                continue  # its prediction is random
            predicted = int(logits[index][row].argmax())
            text = f"{network.title}: {network.class_name(predicted)}"
            if is_known and network.has_classes_of(student):
                is_right = predicted == label
                color = style.RIGHT if is_right else style.WRONG
                mark = "✓" if is_right else "✗"
                lines.append(grid.Line(f"{mark} {text}", color, marks_row=index == 0))
            else:
                lines.append(grid.Line(text))
        rows.append(lines)
    return rows


def _is_in_title(shown: Sequence[Network]) -> bool:
    """Whether a single network is drawn, which the title of the figure names."""
    return len(shown) == 1 and shown[0].title == shown[0].model_name


def _guesses(network: Network, logits: np.ndarray) -> list[grid.Line]:
    """The most probable classes of an image, the first one in bold."""
    powers = np.exp(logits - logits.max())
    best = np.argsort(-logits, kind="stable")[:_GUESSES]
    probable = [f"{network.class_name(k)} {powers[k] / powers.sum():.0%}" for k in best]
    return [grid.Line(text, bold=place == 0) for place, text in enumerate(probable)]


def formula(kind: str, p: float) -> str:
    """Name of a mapping in the paper.

    >>> formula("sum", 2), formula("max", 1)
    ('F_sum^2', 'F_max')
    """
    return f"F_{kind}" if p == 1 else f"F_{kind}^{p:g}"
