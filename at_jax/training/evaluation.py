"""Error of a network on a split; every example counts once."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax

from at_jax import data, losses
from at_jax.distributed import devices, processes
from at_jax.errors import UserError
from at_jax.objective import Objective
from at_jax.training import metrics
from at_jax.training.files import run_files
from at_jax.training.step import Batch

__all__ = ["Evaluation", "check_evaluable", "eval_step", "evaluator"]


class Evaluation(NamedTuple):
    """Results of a network on a split, equal on all processes.

    Attributes:
      errors: ``test_error`` in percent, and ``test_top5_error`` with more than ten classes.
      information: of its predictions about the images, see :func:`at_jax.training.metrics.information`.
    """

    errors: dict[str, float]
    information: float


def evaluator(
    objective: Objective,
    prepare: Callable[[jax.Array], jax.Array],
    split: data.Split,
    batch_size: int,
    used: tuple[jax.Device, ...],
) -> Callable[..., Evaluation]:
    """Build the function that evaluates a network on a split.

    Args:
      objective: with the network as student.
      prepare: normalization.
      split: to evaluate on.
      batch_size: images of a batch; rounded up to a multiple of the devices.
      used: devices.

    Returns:
      A function from replicated variables (and the teacher's, where a term changes the student's forward
      pass) to the :class:`Evaluation`.
    """
    mapped = devices.map_eval(
        functools.partial(
            eval_step, objective=objective, prepare=prepare, axis_name=devices.AXIS_NAME
        ),
        used,
    )
    rounded = -(-batch_size // len(used)) * len(used)

    def evaluate(variables: Any, teacher_variables: Any = None) -> Evaluation:
        parts = []
        for batch in data.eval_batches(split, rounded, shard=processes.index_and_count()):
            sharded = devices.shard(batch, devices.local_count(used))
            parts.append(mapped(variables, teacher_variables, sharded))
            if len(parts) > devices.RUN_AHEAD:
                # Neither images nor collectives may pile up on the device.
                jax.block_until_ready(parts[-1 - devices.RUN_AHEAD])
        measured, predictions = zip(*jax.device_get(parts), strict=True)
        errors = metrics.percent(metrics.means(metrics.total(measured)), "test")
        return Evaluation(errors, metrics.information(predictions))

    return evaluate


def eval_step(
    variables: Any,
    teacher_variables: Any,
    batch: Batch,
    *,
    objective: Objective,
    prepare: Callable[[jax.Array], jax.Array],
    axis_name: str | None = None,
) -> tuple[metrics.Metrics, dict[str, jax.Array]]:
    """Evaluate a network on one batch.

    Args:
      variables: of the student, all collections.
      teacher_variables: of the teacher, where a term changes the student's forward pass; else None.
      batch: ``image`` uint8 (b, H, W, C), ``label`` (b,), ``weight`` (b,), 0 for padding.
      objective: with the network as student.
      prepare: normalization.
      axis_name: the mapped axis; None on one device.

    Returns:
      Global metrics ``error`` (and ``top5_error``) and ``cross_entropy``; sums of the predictions.
    """
    logits = objective.predict(variables, teacher_variables, prepare(batch["image"]))
    labels, weight = batch["label"], batch["weight"]
    measured = {
        **metrics.error_metrics(logits, labels, weight),
        "cross_entropy": metrics.from_examples(losses.cross_entropy(logits, labels), weight),
    }
    found = measured, metrics.predictions(logits, weight)
    return found if axis_name is None else lax.psum(found, axis_name)


def check_evaluable(workdir: pathlib.Path, dataset: data.Dataset | None) -> None:
    """Raise unless the data of a run can be found.

    Args:
      workdir: of the run; it may hold none.
      dataset: passed by the user.

    Raises:
      UserError: if the run was given a data set that is not passed now.
    """
    recorded = run_files.read_arguments(workdir) if run_files.has_config(workdir) else {}
    if "dataset" in recorded and dataset is None:
        raise UserError(
            f"the run in {workdir} was trained on a data set passed as an argument "
            f"({recorded['dataset']['name']}): pass it, evaluate(..., dataset=...) in Python"
        )
