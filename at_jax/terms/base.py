"""Interface of a loss term and of its input, a batch."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax

from at_jax import options
from at_jax.errors import UserError
from at_jax.terms.view import View

__all__ = ["Batch", "Term", "View", "changes_forward_pass"]


class Batch(NamedTuple):
    """Input of a term: a batch, and the forward passes of both networks over it.

    Attributes:
      images: normalized, ``(B, H, W, C)``.
      labels: integers ``(B,)``, or soft labels ``(B, K)``, see :func:`at_jax.losses.cross_entropy`.
      keys: PRNG keys ``(B,)``, a function of (seed, step, position in the global batch), the same for
        student and teacher; None outside a training step.
      student: the student's forward pass, in training mode.
      teacher_view: the frozen teacher's, in evaluation mode; None without a teacher.
      points: pairs (student point, teacher point) whose taps are compared.
      student_at: applies the student to other images; the statistics of that pass are discarded.
    """

    images: jax.Array
    labels: jax.Array
    keys: jax.Array | None
    student: View
    teacher_view: View | None
    points: tuple[tuple[str, str], ...]
    student_at: Callable[[jax.Array], View]

    @property
    def teacher(self) -> View:
        """The teacher's forward pass.

        Raises:
          UserError: without a teacher, which a term with ``needs_teacher`` always has.
        """
        if self.teacher_view is None:
            raise UserError(
                "a term used batch.teacher, got an objective without a teacher: remove "
                "needs_teacher = False from the term, or test batch.teacher_view"
            )
        return self.teacher_view


@dataclasses.dataclass(frozen=True)
class Term:
    """One term of the training loss. Subclass it to add a loss.

    A subclass is a frozen dataclass whose fields are its options, defined with
    :func:`at_jax.options.option` if they have a rule. A term in ``at_jax.terms.TERMS`` also has a config
    section with its name that contains these fields, ``beta`` and ``begin_epoch``.

    Attributes:
      name: used in methods (``at+kd``), for the config section and for the term's parameters.
      title: used in figures and tables, such as "attention transfer".
      color: used in figures, ``"#RRGGBB"``.
      color_combined: used in figures for combinations with other terms; empty for a darker ``color``.
      metric: name in metrics, ``loss/<metric>``; ``name`` unless set.
      beta: default weight; None for a term that replaces the cross-entropy.
      needs_teacher: whether the term uses ``batch.teacher``.
      needs_equal_classes: whether student and teacher must have the same classes.
      compares_taps: kind of tap to compare at the transfer points, ``"activation"`` or None.

    >>> @dataclasses.dataclass(frozen=True)
    ... class LogitMatching(Term):
    ...     name = "logits"
    ...     scale: float = options.option(1.0, "Factor of the difference.", options.above(0))
    ...
    ...     def values(self, batch, params):
    ...         return self.scale * abs(batch.student.logits - batch.teacher.logits).mean(axis=-1)
    >>> LogitMatching(scale=2.0), LogitMatching.metric
    (LogitMatching(scale=2.0), 'logits')
    """

    name: ClassVar[str]
    title: ClassVar[str]
    color: ClassVar[str] = "#6B3E26"
    color_combined: ClassVar[str] = ""
    metric: ClassVar[str]
    beta: ClassVar[float | None] = 1.0
    needs_teacher: ClassVar[bool] = True
    needs_equal_classes: ClassVar[bool] = False
    compares_taps: ClassVar[str | None] = None

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if abstract:  # a base class of terms with common options
            return
        if not getattr(cls, "name", ""):
            raise UserError(
                f"term {cls.__name__} has no name: set the class attribute name, as in name = 'kd'"
            )
        if not isinstance(cls.name, str) or "+" in cls.name or cls.name == "none":
            raise UserError(
                f"the name of term {cls.__name__} must be a string without '+', which joins the terms of a "
                f"method, and not 'none', the method without terms, got {cls.name!r}: rename it"
            )
        # From the class itself: a subclass with a name of its own has a title and a metric of its own.
        for what in ("title", "metric"):
            if what not in vars(cls) and "name" in vars(cls):
                setattr(cls, what, cls.name)
        if cls.compares_taps and not cls.needs_teacher:
            raise UserError(
                f"term {cls.name} compares taps with those of a teacher (compares_taps), got "
                "needs_teacher=False: leave out one of the two"
            )

    def __post_init__(self) -> None:
        options.check(options.plain(self), self.name)

    def values(self, batch: Batch, params: Any) -> jax.Array:
        """Compute the term of every example, unweighted.

        Args:
          batch: images, labels and forward passes.
          params: parameters of :meth:`module`; None without one.

        Returns:
          ``(B,)``.
        """
        raise UserError(
            f"term {type(self).__name__} computes nothing: define values(batch, params), which returns "
            "one number per example"
        )

    def measures(self, batch: Batch, params: Any) -> dict[str, jax.Array]:
        """Compute numbers to report in metrics.jsonl in addition to the term; they do not affect training.

        Called after :meth:`values`, on the same batch; :meth:`View.kept` caches values that both need.

        Args:
          batch: as for :meth:`values`.
          params: as for :meth:`values`.

        Returns:
          Name to ``(B,)``; metrics.jsonl has the mean over the examples of an epoch as ``<name>/<metric>``.
        """
        del batch, params
        return {}

    def module(
        self,
        points: tuple[tuple[str, str], ...],
        taps_s: Mapping[str, Any],
        taps_t: Mapping[str, Any],
    ) -> nn.Module | None:
        """Build the module with the term's own trainable parameters, such as an adapter; None by default.

        Args:
          points: pairs (student point, teacher point).
          taps_s: student's taps, or their shapes.
          taps_t: teacher's taps, or their shapes.

        Returns:
          A linen module whose ``__call__`` takes the student's taps, a dict, and that has parameters only.
          They are initialized on the taps, trained with the student's, and passed to :meth:`values`.
        """
        del points, taps_s, taps_t
        return None

    def forward_inputs(self, teacher: View) -> dict[str, Any]:
        """Keyword arguments for the student's ``apply``, in training and in evaluation.

        Args:
          teacher: the teacher's forward pass over the same images.

        Returns:
          Keyword arguments, such as attention copied from the teacher.
        """
        del teacher
        return {}


def changes_forward_pass(terms: Iterable[Term]) -> bool:
    """Whether any term passes inputs from the teacher to the student."""
    return any(type(term).forward_inputs is not Term.forward_inputs for term in terms)
