"""Student and teacher: what they must agree on, and the objective that joins them."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from at_jax import data, intermediates, methods, models, terms
from at_jax.objective import Objective


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A frozen teacher.

    Attributes:
      module: the network.
      variables: its parameters and statistics; None while only its shapes matter.
      description: as ``Experiment.description``; None for a module that the
        user brought, who then answers for its normalisation.
    """

    module: nn.Module
    variables: Any = None
    description: dict[str, Any] | None = None


def shapes(module: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Any, Any, dict]:
    """Variables, logits and taps of a network, as shapes."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    apply = functools.partial(module.apply, train=False, mutable=[intermediates.COLLECTION])
    with _no_random_numbers(module):
        init = functools.partial(module.init, train=False)
        variables = jax.eval_shape(init, jax.random.key(0), images)
        logits, mutated = jax.eval_shape(apply, variables, images)
    return variables, logits, intermediates.collect(mutated)


@contextlib.contextmanager
def _no_random_numbers(module: nn.Module) -> Iterator[None]:
    try:
        yield
    except flax.errors.InvalidRngError as error:
        raise ValueError(
            f"{type(module).__name__} asks for random numbers in its forward pass (dropout, say), which "
            "the trainer does not supply: leave them out of the module, or train it in a loop of your own"
        ) from error


def _points(texts: tuple[str, ...], taps_s: dict, taps_t: dict) -> tuple[tuple[str, str], ...]:
    """Pairs (student, teacher) from ``"group3<-group3"``; without texts all taps, in order."""
    if not texts:
        if not taps_s or len(taps_s) != len(taps_t):
            raise ValueError(
                f"student and teacher must tap the same number of transfer points, got "
                f"{', '.join(taps_s) or 'none'} and {', '.join(taps_t) or 'none'}: choose pairs, "
                "--config.transfer.points=\"('group3<-stage3',)\""
            )
        return tuple(zip(taps_s, taps_t, strict=True))
    pairs = []
    for text in texts:
        student, arrow, teacher = (part.strip() for part in text.partition("<-"))
        if not (student and arrow and teacher):
            raise ValueError(
                f"transfer.points: each must be 'student<-teacher', got {text!r}: write for example "
                "'group3<-group3'"
            )
        pairs.append((student, teacher))
    intermediates.check_points((s for s, _ in pairs), taps_s, "student")
    intermediates.check_points((t for _, t in pairs), taps_t, "teacher")
    return tuple(pairs)


def check_agreement(dataset: data.Dataset, description: dict[str, Any]) -> None:
    """Raise unless the teacher was made for these classes, images and this normalisation."""
    classes, shape = dataset.num_classes, list(dataset.image_shape)
    if description["num_classes"] != classes:
        raise ValueError(
            f"teacher and student must have the same classes: {dataset.name} has {classes}, the teacher "
            f"was trained on {description['num_classes']}: name another run in teacher.checkpoint"
        )
    if description["image_shape"] != shape:
        raise ValueError(
            f"teacher and student must see the same images: here they are {shape} (height, width, "
            f"channels), the teacher was trained on {description['image_shape']}: set data.image_size, or "
            "name another run in teacher.checkpoint"
        )
    for key, here in (("mean", dataset.mean), ("std", dataset.std)):
        if any(abs(a - b) > 0.5 for a, b in zip(description[key], here, strict=True)):
            values = tuple(round(x, 2) for x in description[key])
            raise ValueError(
                f"teacher and student must see images normalised alike: the teacher's {key} is {values}, "
                f"here it is {tuple(round(x, 2) for x in here)}: set data.mean and data.std to the "
                "teacher's"
            )


def join(config, parts, student, logits_s, taps, teacher, image_shape):
    """The objective, with the shapes of the teacher's variables and of the adapter's parameters."""
    differentiated = _input_gradients(config, parts)
    if not set(parts) - set(methods.WITHOUT_TEACHER):
        return Objective(student, **differentiated), None, {}
    teacher_variables, logits_t, taps_t = shapes(teacher.module, image_shape)
    if logits_t.shape != logits_s.shape:
        raise ValueError(
            f"teacher and student must have the same classes: the student gives {logits_s.shape[-1]} "
            f"logits, the teacher {logits_t.shape[-1]}: name another teacher"
        )
    if teacher.variables is not None:
        _check_variables(teacher, teacher_variables)
    points = ()
    if "at" in parts or "f_actt" in parts:
        points = _points(config.transfer.points, taps, taps_t)
    adapter, adapter_shapes = None, {}
    if "f_actt" in parts:
        if len({s for s, _ in points}) < len(points):
            raise ValueError(
                f"transfer.points: f_actt adapts each student point to one teacher point, got {points}: "
                "name each student point once"
            )
        channels = tuple(
            (s, taps_t[t].shape[-1]) for s, t in points if taps[s].shape[-1] != taps_t[t].shape[-1]
        )
        adapter = models.Adapter(channels) if channels else None
        if adapter is not None:
            adapter_shapes = jax.eval_shape(adapter.init, jax.random.key(0), taps)["params"]
    objective = Objective(
        student,
        teacher.module,
        points,
        distillation=terms.Distillation(config.kd.temperature, config.kd.alpha)
        if "kd" in parts
        else None,
        attention=terms.Attention(config.at.kind, config.at.p, config.at.convention)
        if "at" in parts
        else None,
        activation="f_actt" in parts,
        adapter=adapter,
        **differentiated,
    )
    return objective, teacher_variables, adapter_shapes


def _input_gradients(config, parts: tuple[str, ...]) -> dict[str, terms.InputGradient]:
    """The terms on input gradients, by their field of the objective."""
    squared = {
        terms.GRADIENT_AT: config.gradient_at.squared,
        terms.FLIP_SYMMETRY: config.flip_symmetry.squared,
        terms.MIN_L2: config.min_l2.squared,
    }
    return {part: terms.InputGradient(squared[part]) for part in parts if part in squared}


def _check_variables(teacher: Teacher, wanted: Any) -> None:
    def described(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}

    there, wanted = described(dict(teacher.variables)), described(dict(wanted))
    differing = sorted(k for k in there.keys() | wanted.keys() if there.get(k) != wanted.get(k))
    if differing:
        key = differing[0]
        raise ValueError(
            f"the teacher's variables are not those of {type(teacher.module).__name__}: {key} should be "
            f"{wanted.get(key, 'absent')}, got {there.get(key, 'absent')}: pass module and variables of "
            "one network, as at_jax.checkpoint.load gives them"
        )


def trace(prepare, objective, params, batch_stats, teacher_variables, shape) -> None:
    """Run augmentation and loss on shapes alone: what is wrong shows now, before a teacher is trained."""
    labels = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    pixels = jax.ShapeDtypeStruct(shape, jnp.uint8)
    images = jax.eval_shape(prepare, jax.random.key(0), pixels, labels)
    weights = dict.fromkeys(objective.weighted_terms, jax.ShapeDtypeStruct((), jnp.float32))
    with _no_random_numbers(objective.student):
        jax.eval_shape(objective, params, batch_stats, teacher_variables, images, labels, weights)
