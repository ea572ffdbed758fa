"""What stands in which cell: columns and captions of the grids, from networks and images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from at_jax.figures import attention as maps
from at_jax.figures import canvas, cells, grid, networks
from at_jax.figures.networks import Network
from at_jax.figures.pictures import UNKNOWN, Pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The mappings that the paper puts side by side: kind and p.
MAPPINGS = (("sum", 1), ("sum", 2), ("sum", 4), ("max", 1))
_EVEN = "Each map is divided by its root mean square: 1 is a map that favours no position."
_OPAQUE = 1.0
# A few positions hold the largest values by far: of the scale's upper end all else would be dark.
_QUANTILE = 0.995
_CLIPPED = "The largest half percent of the values of a scale share its last colour."


def attention(
    shown: Sequence[Network],
    pictures: Pictures,
    *,
    points: Sequence[str] = (),
    kind: str = "sum",
    p: float = 2,
    title: str,
    batch: int = 0,
) -> "Figure":
    """The grid of maps: for every transfer point those of the student and of what stands beside it.

    Args:
      shown: the student first; the teacher, if there is one, is titled so.
      pictures: a row each.
      points: ``transfer.points`` of the config.
      kind: ``"sum"`` or ``"max"``.
      p: exponent.
      title: above all.
      batch: see `Network.look`.

    Raises:
      ValueError: if student and another network cannot be paired.
    """
    looks = [network.look(pictures.images, kind=kind, p=p, batch=batch) for network in shown]
    maps.check_taps(shown[0].module, looks[0][1])
    names = [tuple(look[1]) for look in looks]
    columns = []
    student = names[0]
    # The student's points -> those of each network beside it.
    paired = [_partners(points, student, found, n) for n, found in zip(shown, names, strict=True)]
    for point in [s for s in student if all(s in partners for partners in paired)]:
        size = "x".join(map(str, looks[0][1][point].shape[1:]))
        for network, look, partners in zip(shown, looks, paired, strict=True):
            other = partners[point]
            head = network.title if other == point else f"{network.title} {other}"
            columns.append(cells.Column(f"{point} ({size})", head, cells.even(look[1][other])))
    return grid.draw(
        pictures.shown,
        columns,
        captions(shown, [look[0] for look in looks], pictures),
        title=title,
        note=f"Attention maps {formula(kind, p)} over the image. {_EVEN} {_CLIPPED}",
        quantile=_QUANTILE,
    )


def gradients(shown: Sequence[Network], pictures: Pictures, *, title: str) -> "Figure":
    """The grid of |J| summed over channels: where a small change of a pixel changes the loss most."""
    looks = [network.sensitive(pictures.images, pictures.labels) for network in shown]
    columns = [
        cells.Column("|J|, summed over channels", network.title, cells.even(j))
        for network, (_, j) in zip(shown, looks, strict=True)
    ]
    return grid.draw(
        pictures.shown,
        columns,
        captions(shown, [logits for logits, _ in looks], pictures),
        title=title,
        note="|J|, the input gradient of the cross-entropy: bright where the loss is sensitive. "
        f"{_EVEN} {_CLIPPED}",
        opacity=_OPAQUE,
        quantile=_QUANTILE,
    )


def mappings(shown: Sequence[Network], pictures: Pictures, *, title: str) -> "Figure":
    """One image through F_sum, F_sum^2, F_sum^4 and F_max at every transfer point, a row a point."""
    rows, values, logits = [], {formula(*m): [] for m in MAPPINGS}, []
    for network in shown:
        normalised = network.normalize(pictures.images[:1])
        answer, several = maps.answers_and_mappings(
            network.module, network.variables, normalised, MAPPINGS
        )
        maps.check_taps(network.module, several[0])
        for mapping, looked in zip(MAPPINGS, several, strict=True):
            values[formula(*mapping)] += [cells.even(q)[0] for q in looked.values()]
        logits.append(answer)
        rows += [
            [grid.Line(network.title, bold=True), grid.Line(f"{name} ({'x'.join(map(str, size))})")]
            for name, size in ((n, q.shape[1:]) for n, q in looked.items())
        ]
    first = captions(shown, logits, pictures)[0]
    rows[0] = [*rows[0], *first]
    return grid.draw(
        [pictures.shown[0]] * len(rows),
        [cells.Column(name, "", q) for name, q in values.items()],
        rows,
        title=title,
        note=f"One image, four mappings from activations to a map. {_EVEN} {_CLIPPED}",
        quantile=_QUANTILE,
    )


def captions(
    shown: Sequence[Network], logits: Sequence[np.ndarray], pictures: Pictures
) -> list[list[grid.Line]]:
    """Beside each row: the true class, and what each trained network takes the image for."""
    rows = []
    for row, label in enumerate(pictures.labels):
        known = label != UNKNOWN
        lines = [grid.Line(shown[0].class_name(label), bold=True)] if known else []
        for network, answers in zip(shown, logits, strict=True):
            if network.title == networks.UNTRAINED:
                continue  # it answers at random
            named = int(answers[row].argmax())
            right = named == label
            colour = (canvas.RIGHT if right else canvas.WRONG) if known else "black"
            sign = ("✓ " if right else "✗ ") if known else ""
            lines.append(grid.Line(f"{sign}{network.title}: {shown[0].class_name(named)}", colour))
        rows.append(lines)
    return rows


def formula(kind: str, p: float) -> str:
    """A mapping as the paper writes it.

    >>> formula("sum", 2), formula("max", 1)
    ('F_sum^2', 'F_max')
    """
    return f"F_{kind}" if p == 1 else f"F_{kind}^{p:g}"


def _partners(
    texts: Sequence[str], student: tuple[str, ...], found: tuple[str, ...], network: Network
) -> dict[str, str]:
    """The student's points to those of a network beside it."""
    is_teacher = network.title == networks.TEACHER
    partners = dict(networks.pairs(texts if is_teacher else (), student, found))
    if not partners or not set(partners.values()) <= set(found):
        raise ValueError(
            f"{network.title} and student must tap the same transfer points to be drawn side by side, got "
            f"{', '.join(found)} and {', '.join(student)}: compare networks of one family"
        )
    return partners
