"""From a config to the pieces of a run.

Whatever is wrong with a pair of networks, or with networks and data, is found here, before anything
compiles and before a teacher is trained; single values were checked by settings.py.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from at_jax import checkpoint, data, intermediates, models, parallel, schedules, settings, state
from at_jax.objective import ACTIVATION, ATTENTION, Attention, Distillation, Objective
from at_jax.step import Prepare

# Decoding a data set takes seconds; teacher and student of one command use the same one.
_load = functools.lru_cache(maxsize=1)(data.load)


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A frozen teacher.

    Attributes:
      module: the network.
      variables: its parameters and statistics; None while only its shapes matter.
      description: as :func:`at_jax.checkpoint.describe_model` writes it; None for a module that the
        user brought, who then answers for its normalisation.
    """

    module: nn.Module
    variables: Any = None
    description: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The pieces of one run, ready to be compiled.

    Attributes:
      dataset: with the chosen training images.
      objective: student, teacher, terms.
      teacher: or None.
      optimizer: with its schedule.
      learning_rate: step -> rate.
      weights: term -> (step -> beta).
      batches: of the training images.
      steps: updates in the whole run.
      prepare_train: augments and normalises.
      prepare_eval: normalises.
      taps: shapes of the student's activations.
      parameters: how many numbers the student learns, statistics not counted.
      description: of the student, for its checkpoints.
    """

    dataset: data.Dataset
    objective: Objective
    teacher: Teacher | None
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    weights: dict[str, optax.Schedule]
    batches: data.TrainBatches
    steps: int
    prepare_train: Prepare
    prepare_eval: Any
    taps: dict[str, jax.ShapeDtypeStruct]
    parameters: int
    description: dict[str, Any]

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch."""
        return self.batches.steps_per_epoch


def load_data(config: ml_collections.ConfigDict) -> data.Dataset:
    """The data set of a config, with its few labels and its validation part chosen."""
    dataset = _load(
        config.data.source,
        name=config.data.name,
        data_dir=config.data.data_dir,
        image_size=config.data.image_size,
        memory_limit_mb=config.data.memory_limit_mb,
    )
    if config.data.mean:
        channels = dataset.image_shape[-1]
        if len(config.data.mean) != channels:
            raise ValueError(
                f"data.mean must have one number a channel, {channels} for {dataset.name}, got "
                f"{config.data.mean}"
            )
        dataset = dataclasses.replace(dataset, mean=config.data.mean, std=config.data.std)
    if config.data.validation_examples:
        dataset = data.hold_out(dataset, config.data.validation_examples, config.data.split_seed)
    return data.few_labels(dataset, config.data.train_examples, config.data.split_seed)


def build(config: ml_collections.ConfigDict, name: str, num_classes: int) -> nn.Module:
    """A network by name, in the config's dtype."""
    return models.build(name, num_classes, jnp.dtype(config.dtype))


def load_teacher(config: ml_collections.ConfigDict, workdir: Any) -> Teacher:
    """Open a teacher's run, in the config's dtype."""
    module, variables, description = checkpoint.open_run(workdir)
    return Teacher(module.clone(dtype=jnp.dtype(config.dtype)), variables, description)


def _shapes(module: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Any, Any, dict]:
    """Variables, logits and taps of a network, as shapes."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    apply = functools.partial(module.apply, train=False, mutable=[intermediates.COLLECTION])
    logits, mutated = jax.eval_shape(apply, variables, images)
    return variables, logits, intermediates.collect(mutated)


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


def _check_agreement(dataset: data.Dataset, description: dict[str, Any]) -> None:
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


def assemble(
    config: ml_collections.ConfigDict,
    dataset: data.Dataset,
    student: nn.Module,
    name: str,
    teacher: Teacher | None,
) -> Experiment:
    """Put a run together, and trace its loss once on shapes so that every error is raised here.

    Args:
      config: checked.
      dataset: of the config.
      student: the network to train.
      name: its name for :func:`at_jax.models.build`; empty for the user's own module.
      teacher: or None; without variables the result only serves as a check.

    Returns:
      The pieces.

    Raises:
      ValueError: if networks, data and terms do not fit together.
    """
    parts = settings.method_parts(config.method)
    batches = data.TrainBatches(dataset.train, config.batch_size, config.seed)
    per_epoch = batches.steps_per_epoch
    steps = config.epochs * per_epoch
    variables, logits, taps = _shapes(student, dataset.image_shape)
    if logits.shape != (1, dataset.num_classes):
        raise ValueError(
            f"the student must give {dataset.num_classes} logits for {dataset.name}, got shape "
            f"{logits.shape[1:]}: build it with num_classes={dataset.num_classes}"
        )
    if teacher is not None and teacher.description is not None:
        _check_agreement(dataset, teacher.description)
    objective, teacher_variables, adapter_shapes = _objective(
        config, parts, student, taps, teacher, dataset.image_shape
    )
    drops = tuple(epoch * per_epoch for epoch in config.optimizer.drop_epochs)
    learning_rate = schedules.step_decay(
        config.optimizer.learning_rate, drops, config.optimizer.drop_factor
    )
    betas = {ATTENTION: config.at.beta, ACTIVATION: config.f_actt.beta}
    weights = {
        term: schedules.decay(
            config.transfer.decay,
            betas[term],
            steps,
            boundaries=tuple(epoch * per_epoch for epoch in config.transfer.decay_epochs),
            factor=config.transfer.decay_factor,
        )
        for term in objective.weighted_terms
    }
    normalize = functools.partial(data.normalize, mean=dataset.mean, std=dataset.std)

    def prepare(key, images, position):
        images = data.augment(key, images, position, pad=config.data.pad, mirror=config.data.mirror)
        return normalize(images)

    _trace(
        prepare,
        objective,
        {"student": variables["params"], "adapter": adapter_shapes},
        variables.get("batch_stats", {}),
        teacher_variables,
        (config.batch_size, *dataset.image_shape),
    )
    if hasattr(student, "bn_axis_name"):
        objective = dataclasses.replace(
            objective, student=student.clone(bn_axis_name=parallel.AXIS_NAME)
        )
    return Experiment(
        dataset=dataset,
        objective=objective,
        teacher=teacher,
        optimizer=state.sgd(
            learning_rate,
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
        ),
        learning_rate=learning_rate,
        weights=weights,
        batches=batches,
        steps=steps,
        prepare_train=prepare,
        prepare_eval=normalize,
        taps=taps,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        description=checkpoint.describe_model(
            name, dataset.num_classes, dataset.image_shape, dataset.mean, dataset.std, config.dtype
        ),
    )


def _objective(config, parts, student, taps, teacher, image_shape):
    """The objective, with the shapes of the teacher's variables and of the adapter's parameters."""
    if not parts:
        return Objective(student), None, {}
    teacher_variables, _, taps_t = _shapes(teacher.module, image_shape)
    points = ()
    if "at" in parts or "f_actt" in parts:
        points = _points(config.transfer.points, taps, taps_t)
    adapter, adapter_shapes = None, {}
    if "f_actt" in parts:
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
        distillation=Distillation(config.kd.temperature, config.kd.alpha)
        if "kd" in parts
        else None,
        attention=Attention(config.at.kind, config.at.p, config.at.convention)
        if "at" in parts
        else None,
        activation="f_actt" in parts,
        adapter=adapter,
    )
    return objective, teacher_variables, adapter_shapes


def _trace(prepare, objective, params, batch_stats, teacher_variables, shape) -> None:
    """Run augmentation and loss on shapes alone: what is wrong shows now, not after a teacher's training."""
    labels = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    pixels = jax.ShapeDtypeStruct(shape, jnp.uint8)
    images = jax.eval_shape(prepare, jax.random.key(0), pixels, labels)
    weights = dict.fromkeys(objective.weighted_terms, jax.ShapeDtypeStruct((), jnp.float32))
    jax.eval_shape(objective, params, batch_stats, teacher_variables, images, labels, weights)
