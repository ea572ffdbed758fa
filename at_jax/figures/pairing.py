"""Networks that are drawn next to each other: their order, and which transfer points correspond."""

from collections.abc import Sequence

from at_jax.errors import UserError, listed
from at_jax.figures import networks
from at_jax.figures.networks import Network

__all__ = ["check_images", "drawing_order", "pairs", "partners"]


def drawing_order(shown: Sequence[Network]) -> list[int]:
    """Indices from left to right: networks to compare with, the student, the teacher."""

    def place(index: int) -> int:
        return 2 if shown[index].title == networks.TEACHER else 1 if index == 0 else 0

    return sorted(range(len(shown)), key=place)


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
    """Raise unless all networks take images of one size. A teacher may have a size of its own.

    Raises:
      UserError: naming the two that differ.
    """
    first, *others = shown
    for network in others:
        if network.title != networks.TEACHER and network.image_shape != first.image_shape:
            raise UserError(
                f"{network.title} and {first.title} must take images of one size, got "
                f"{network.image_shape} and {first.image_shape}: compare runs on one data set"
            )


def partners(
    texts: Sequence[str], student: tuple[str, ...], found: tuple[str, ...], network: Network
) -> dict[str, str]:
    """Map the transfer points of the student to those of another network.

    Args:
      texts: ``transfer.points`` of the run's config.
      student: transfer points of the student.
      found: those of the other network.
      network: the other network.

    Raises:
      UserError: if they cannot be paired.
    """
    is_teacher = network.title == networks.TEACHER
    paired = dict(pairs(texts if is_teacher else (), student, found))
    if not paired or not set(paired.values()) <= set(found):
        raise UserError(
            f"{network.title} and student must have the same transfer points to be drawn next to each "
            f"other, got {listed(found)} and {listed(student)}: compare networks of one family"
        )
    return paired
