"""Components passed by the user in place of those of the config, and their record in config.json."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np

from at_jax import data, options
from at_jax.errors import UserError, listed
from at_jax.terms import TERMS, Term, parts
from at_jax.training.components import component_records, modules
from at_jax.training.components.optimizers import OptimizerFactory
from at_jax.training.settings import Settings, TermSettings

__all__ = ["Arguments", "Callback", "chosen_terms"]


class Callback(Protocol):
    """An observer of a run, such as a logger for a tracking service."""

    def on_epoch(self, metrics: Mapping[str, Any]) -> None:
        """Receive the metrics of an epoch: a line of metrics.jsonl.

        What it raises stops the run, which is saved. The epoch is not received again when it is resumed.
        """

    def on_end(self, result: Mapping[str, Any]) -> None:
        """Receive the result of the run: the content of result.json."""


@dataclasses.dataclass(frozen=True, eq=False)
class Arguments:
    """Components passed by the user; None where the config decides.

    Attributes:
      student: a linen module.
      teacher: a linen module and its variables.
      dataset: for student and teacher.
      optimizer: from the learning-rate schedule to an optax transformation; for student and teacher.
      augment: ``augment(key, image) -> image`` for one example before normalization; for both.
      terms: of the loss, in place of those of the method; a mapping gives their weights, None for the
        default.
      callbacks: observers of the student's run.
      module: an instance, or ``"package:name"``: the user-defined module of a run that is opened again.
    """

    student: nn.Module | None = None
    teacher: tuple[nn.Module, Any] | None = None
    dataset: data.Dataset | None = None
    optimizer: OptimizerFactory | None = None
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    terms: Sequence[Term] | Mapping[Term, float | None] | None = None
    callbacks: Sequence[Callback] = ()
    module: nn.Module | str | None = None

    def __post_init__(self) -> None:
        if self.student is not None:
            modules.check_is_module(self.student, "student")
        if self.teacher is not None:
            if not isinstance(self.teacher, tuple | list) or len(self.teacher) != 2:
                raise UserError(
                    f"teacher must be a pair (module, variables), got {type(self.teacher).__name__}: "
                    "at_jax.checkpoint.load returns such a pair"
                )
            modules.check_is_module(self.teacher[0], "teacher")
        if self.dataset is not None and not isinstance(self.dataset, data.Dataset):
            raise UserError(
                f"dataset must be an at_jax.data.Dataset, got {type(self.dataset).__name__}: build it with "
                "at_jax.data.from_arrays or from_source"
            )
        if self.optimizer is not None:
            example = "lambda rate: optax.adamw(rate)"
            modules.check_function("optimizer", self.optimizer, ("rate",), example)
        if self.augment is not None:
            example = "augment(key, image) -> image"
            modules.check_function("augment", self.augment, ("key", "image"), example)
        if self.callbacks is None:
            object.__setattr__(self, "callbacks", ())
        for name, example in (("terms", "(MyTerm(),)"), ("callbacks", "(MyCallback(),)")):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Sequence | Mapping):
                raise UserError(
                    f"{name} must be a sequence, got {type(value).__name__}: pass {name}={example}"
                )
        for term, weight in _with_weights(self.terms or ()):
            _check_term(term, weight)
        for callback in self.callbacks:
            _check_callback(callback)

    def for_teacher(self) -> "Arguments":
        """Arguments that also apply to a teacher that is trained in the run."""
        return Arguments(dataset=self.dataset, optimizer=self.optimizer, augment=self.augment)

    def for_comparison(self, needs_teacher: bool) -> "Arguments":
        """Arguments that also apply to a run of the same student with another method."""
        teacher = self.teacher if needs_teacher else None
        return dataclasses.replace(self, teacher=teacher, terms=None, callbacks=())

    def record(self) -> dict[str, Any]:
        """Describe what was passed, for config.json."""
        described: dict[str, Any] = {}
        if self.student is not None:
            described["student"] = component_records.record(self.student)
        if self.teacher is not None:
            described["teacher"] = component_records.record(self.teacher[0])
        if self.dataset is not None:
            described["dataset"] = {"name": self.dataset.name}
        for name in ("optimizer", "augment"):
            if (value := getattr(self, name)) is not None:
                described[name] = component_records.text_of(value)
        if self.terms is not None:
            described["terms"] = [
                {
                    "name": term.name,
                    "weight": _recorded(term, weight),
                    **component_records.record(term),
                }
                for term, weight in _with_weights(self.terms)
            ]
        if self.callbacks:
            described["callbacks"] = [
                component_records.qualified_name(each) for each in self.callbacks
            ]
        # As it is read again: tuples are lists in JSON.
        return json.loads(json.dumps(described))


def _recorded(term: Term, weight: float | None) -> float | None:
    """The weight of a term in its record. The default weight of a term of the library is in the config."""
    return term.beta if weight is None and type(term) is not TERMS.get(term.name) else weight


def _check_callback(callback: Any) -> None:
    name = callback.__name__ if isinstance(callback, type) else type(callback).__name__
    methods = {"on_epoch": "metrics", "on_end": "result"}
    missing = [
        f"{method}({argument})"
        for method, argument in methods.items()
        if not callable(getattr(callback, method, None))
    ]
    if missing:
        raise UserError(
            f"callback {name} must have the methods on_epoch(metrics) and on_end(result), got one without "
            f"{listed(missing)}: define it"
        )
    if isinstance(callback, type):
        raise UserError(f"callbacks must be objects, got the class {name}: pass {name}()")
    for method, argument in methods.items():
        modules.check_function(method, getattr(callback, method), (argument,), "a method")


def _with_weights(
    terms: Sequence[Term] | Mapping[Term, float | None],
) -> list[tuple[Term, float | None]]:
    """Terms with their weights; None for the default."""
    if not isinstance(terms, Mapping):
        return [(term, None) for term in terms]
    # JSON and the rules of weights know Python's numbers.
    return [(t, w.item() if isinstance(w, np.generic) else w) for t, w in terms.items()]


def _check_term(term: Any, weight: Any) -> None:
    if not isinstance(term, Term):
        got = term.__name__ if isinstance(term, type) else type(term).__name__
        raise UserError(
            f"terms must be instances of at_jax.terms.Term, got {got}: pass a sequence such as "
            "(MyTerm(),), or a mapping {MyTerm(): weight}"
        )
    if weight is None:
        return
    if term.beta is None:
        raise UserError(
            f"terms: {term.name} replaces the cross-entropy and has no weight, got {weight!r}: pass None"
        )
    if not (rule := options.BETAS).accepts(weight):
        raise UserError(
            f"terms: the weight of {term.name} must be {rule.text}, got {weight!r}: pass a number, or "
            "None for its default"
        )


def chosen_terms(settings: Settings, arguments: Arguments) -> tuple[TermSettings, ...]:
    """Terms of the loss: those that were passed, or else those of the method.

    Raises:
      UserError: for a term that would begin after the last epoch.
    """
    if arguments.terms is None:
        chosen = tuple(settings.terms[name] for name in parts(settings.method))
    else:
        chosen = tuple(_passed_term(settings, *each) for each in _with_weights(arguments.terms))
    for each in chosen:
        if each.begin_epoch >= settings.epochs:
            raise UserError(
                f"term {each.term.name} must begin before the last epoch ends, got "
                f"{each.term.name}.begin_epoch={each.begin_epoch} in a run of {settings.epochs} epochs "
                f"(counted from 0): use 0 to {settings.epochs - 1}, also as transfer.begin_epoch, or leave "
                "the term out"
            )
    return chosen


def _passed_term(settings: Settings, term: Term, weight: float | None) -> TermSettings:
    if type(term) is not TERMS.get(term.name):
        default, begin = term.beta, settings.transfer.begin_epoch
    else:
        # What is not passed about a term of the library is in its config section.
        section = settings.terms[term.name]
        default, begin = section.beta, section.begin_epoch
    return TermSettings(term, default if weight is None else weight, begin)
