"""Figures of networks: attention maps, input gradients, and the four mappings of the paper."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from at_jax.errors import UserError, listed
from at_jax.figures import grid, networks, style
from at_jax.figures.attention import check_taps, rms_normalize
from at_jax.figures.images import UNKNOWN, Images
from at_jax.figures.networks import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "attention_figure", "captions", "check_images", "formula", "gradient_figure", "mapping_figure",
    "pairs",
]  # fmt: skip

# The mappings that the paper compares: kind and p.
_MAPPINGS = (("sum", 1), ("sum", 2), ("sum", 4), ("max", 1))


def attention_figure(
    shown: Sequence[Network],
    images: Images,
    *,
    points: Sequence[str] = (),
    kind: str = "sum",
    p: float = 2,
    title: str,
    batch: int = 0,
) -> "Figure":
    """Draw the maps of all networks at every transfer point.

    Args:
      shown: the student first; a teacher is titled so.
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
        _partners(points, student, tuple(each), network)
        for network, each in zip(shown, maps, strict=True)
    ]
    columns = []
    for point in [s for s in student if all(s in paired for paired in partners)]:
        size = "x".join(map(str, maps[0][point].shape[1:]))
        for network, each, paired in zip(shown, maps, partners, strict=True):
            other = paired[point]
            head = network.title if other == point else f"{network.title} {other}"
            columns.append(grid.Column(f"{point} ({size})", head, rms_normalize(each[other])))
    logits = [each for each, _ in found]
    note = f"Attention maps {formula(kind, p)} over the image."
    return grid.draw(images.shown, columns, captions(shown, logits, images), title=title, note=note)


def gradient_figure(shown: Sequence[Network], images: Images, *, title: str) -> "Figure":
    """Draw ``|J|`` summed over channels, where J is the input gradient of the cross-entropy.

    Args:
      shown: the student first.
      images: one row each.
      title: of the figure.
    """
    first = shown[0].input_gradient(images.pixels, images.labels)
    found = [first]
    for network in shown[1:]:
        # A network with other classes has no label: None selects its predicted class.
        labels = images.labels if network.has_classes_of(shown[0]) else None
        found.append(network.input_gradient(images.pixels, labels))
    columns = [
        grid.Column("|J|, summed over channels", network.title, rms_normalize(j))
        for network, (_, j) in zip(shown, found, strict=True)
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
    """Draw F_sum, F_sum^2, F_sum^4 and F_max of the first image, one row a transfer point.

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
    """Lines on the left of each row: the true class, and the prediction of each trained network."""
    rows = []
    for row, label in enumerate(images.labels):
        is_known = label != UNKNOWN
        lines = [grid.Line(shown[0].class_name(label), bold=True)] if is_known else []
        for network, each in zip(shown, logits, strict=True):
            if network.title == networks.UNTRAINED:
                continue  # its prediction is random
            predicted = int(each[row].argmax())
            text = f"{network.title}: {network.class_name(predicted)}"
            if is_known and network.has_classes_of(shown[0]):
                is_right = predicted == label
                color = style.RIGHT if is_right else style.WRONG
                lines.append(grid.Line(f"{'✓' if is_right else '✗'} {text}", color))
            else:
                lines.append(grid.Line(text))
        rows.append(lines)
    return rows


def formula(kind: str, p: float) -> str:
    """Name of a mapping in the paper.

    >>> formula("sum", 2), formula("max", 1)
    ('F_sum^2', 'F_max')
    """
    return f"F_{kind}" if p == 1 else f"F_{kind}^{p:g}"


def pairs(
    texts: Sequence[str], points_s: Sequence[str], points_t: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Pair the transfer points that are drawn next to each other.

    Args:
      texts: ``transfer.points`` of the run's config, such as ``"group3<-stage3"``; empty for none.
      points_s: of the student.
      points_t: of the teacher.

    Returns:
      Pairs (student, teacher): those that were compared in training, else all in order; empty if
      their numbers differ.

    >>> pairs((), ("group1", "group2"), ("stage1", "stage2"))
    (('group1', 'stage1'), ('group2', 'stage2'))
    >>> pairs(("group2 <- stage3",), ("group1", "group2"), ("stage3",))
    (('group2', 'stage3'),)
    """
    if texts:
        split = (text.partition("<-") for text in texts)
        return tuple((s.strip(), t.strip()) for s, _, t in split)
    return tuple(zip(points_s, points_t, strict=True)) if len(points_s) == len(points_t) else ()


def check_images(shown: Sequence[Network]) -> None:
    """Raise unless all networks take images of one size.

    Raises:
      UserError: naming the two that differ.
    """
    first, *others = shown
    for network in others:
        if network.image_shape != first.image_shape:
            raise UserError(
                f"{network.title} and {first.title} must take images of one size, got "
                f"{network.image_shape} and {first.image_shape}: compare runs on one data set"
            )


def _partners(
    texts: Sequence[str], student: tuple[str, ...], found: tuple[str, ...], network: Network
) -> dict[str, str]:
    """Transfer points of the student to those of another network."""
    is_teacher = network.title == networks.TEACHER
    partners = dict(pairs(texts if is_teacher else (), student, found))
    if not partners or not set(partners.values()) <= set(found):
        raise UserError(
            f"{network.title} and student must have the same transfer points to be drawn next to each "
            f"other, got {listed(found)} and {listed(student)}: compare networks of one family"
        )
    return partners
