"""The same training step in idiomatic PyTorch, on the weights of Flax.

The losses of :mod:`at_jax.objective` are implemented independently. Runs under PyTorch 2.11 to 2.13.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flax import traverse_util
from torch.nn import functional

from at_jax.errors import UserError
from benchmarks.double_backprop.pytorch_networks import Network

__all__ = ["LAYOUTS", "Program", "has_row", "program"]

_FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
LAYOUTS = tuple(_FORMATS)
# Permutation of the axes, by rank: biases, matrices, kernels.
_TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_TO_FLAX = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
_TEMPERATURE, _ALPHA = 4.0, 0.9
# Terms with a teacher, and terms on the input gradient J.
_WITH_TEACHER = {"kd", "at", "gradient_at"}
_ON_J = {"min_l2", "flip_symmetry", "gradient_at"}


def has_row(row: str) -> bool:
    """Whether a row is implemented here: a method without a mode, of known terms."""
    return set(row.split("+")) <= {"none"} | _WITH_TEACHER | _ON_J


def _forward(net: Network, images: torch.Tensor, labels: torch.Tensor, with_j: bool, **options):
    """Compute logits, taps, the sum of the cross-entropies, and J or None in one forward pass."""
    logits, taps = net(images)
    summed = functional.cross_entropy(logits, labels, reduction="sum")
    j = torch.autograd.grad(summed, images, **options)[0] if with_j else None
    return logits, taps, summed, j


def _distillation(logits_s: torch.Tensor, logits_t: torch.Tensor, hard: torch.Tensor):
    soft = functional.kl_div(
        functional.log_softmax(logits_s / _TEMPERATURE, dim=1),
        functional.log_softmax(logits_t / _TEMPERATURE, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return _ALPHA * _TEMPERATURE**2 * soft + (1 - _ALPHA) * hard


def _attention(taps_s: list[torch.Tensor], taps_t: list[torch.Tensor]) -> torch.Tensor:
    def map_of(tap):
        return functional.normalize(tap.float().square().mean(1).flatten(1))

    pairs = zip(taps_s, taps_t, strict=True)
    return sum((map_of(s) - map_of(t)).square().mean() for s, t in pairs)


def _half_norm(j: torch.Tensor) -> torch.Tensor:
    # The gradient of vector_norm at zero is zero, not NaN.
    return torch.linalg.vector_norm(j, dim=(1, 2, 3)).mean() / 2


def _loss(
    parts: set[str],
    weights: Mapping[str, float],
    student: Network,
    teacher: Network | None,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Loss of a batch. One forward pass of the student gives its logits, taps and J."""
    if teacher is not None:
        with_j = "gradient_at" in parts
        with torch.set_grad_enabled(with_j):
            logits_t, taps_t, _, j_t = _forward(teacher, images, labels, with_j)
        logits_t, taps_t = logits_t.detach(), [tap.detach() for tap in taps_t]
    logits_s, taps_s, summed, j_s = _forward(
        student, images, labels, bool(parts & _ON_J), create_graph=True
    )
    loss = summed / len(labels)
    if "kd" in parts:
        loss = _distillation(logits_s, logits_t, loss)
    if "at" in parts:
        loss = loss + weights["at"] * _attention(taps_s, taps_t)
    if "gradient_at" in parts:
        loss = loss + weights["gradient_at"] * _half_norm(j_s - j_t)
    if "flip_symmetry" in parts:
        again = dataclasses.replace(student, updates_statistics=False)
        *_, j_flipped = _forward(again, images.flip(3), labels, True, create_graph=True)
        loss = loss + weights["flip_symmetry"] * _half_norm(j_s - j_flipped.flip(3))
    if "min_l2" in parts:
        loss = loss + weights["min_l2"] * _half_norm(j_s)
    return loss


class Program:
    """Training step on one batch. ``program(steps)`` runs and times steps.

    Args:
      loss: computes the loss.
      parameters: of the student, by name.
      compiled: compile loss and gradient; the update is not compiled.
      **sgd: options of ``torch.optim.SGD``.

    Attributes:
      loss: of the first step, before any update.
    """

    def __init__(self, loss, parameters, compiled, **sgd):
        def differentiate():
            value = loss()
            # Without inputs=, the gradient with respect to the images would be computed too.
            value.backward(inputs=list(parameters.values()))
            return value.detach()

        self._parameters = parameters
        self._optimizer = torch.optim.SGD(parameters.values(), fused=True, **sgd)
        self._differentiate = differentiate
        if compiled:
            # Without this option a row on J raises an error: torch.compile with aot_autograd does not
            # support double backward. With it, and with the last backward pass in the compiled function,
            # both derivatives are traced into one graph and every row runs.
            torch._dynamo.config.trace_autograd_ops = True
            # torch.compile keeps at most 8 variants of a code object: give every program its own, as the
            # option isolate_recompiles of later versions does.
            differentiate.__code__ = differentiate.__code__.replace()
            self._differentiate = torch.compile(differentiate, fullgraph=True)
        self.loss = self._differentiate().item()

    def __call__(self, steps: int) -> float:
        """Run some steps and return their time, in seconds."""
        self._wait()
        began = time.perf_counter()
        for _ in range(steps):
            self._optimizer.zero_grad()
            self._differentiate()
            self._optimizer.step()
        self._wait()
        return time.perf_counter() - began

    def gradients(self) -> dict[str, np.ndarray]:
        """Gradients of the latest step, or of the first before any call, in the layout of Flax."""
        return {
            name: tensor.grad.permute(_TO_FLAX[tensor.ndim]).cpu().numpy()
            for name, tensor in self._parameters.items()
        }

    def _wait(self) -> None:
        if any(tensor.is_cuda for tensor in self._parameters.values()):
            torch.cuda.synchronize()


def _network(name: str, variables: Any, train: bool, layout: str, dtype: str, device: str):
    """Build a network on copies of Flax variables, which training changes in place."""
    tensors = {}
    for collection in ("params", "batch_stats"):
        flat = traverse_util.flatten_dict(variables.get(collection, {}), sep="/")
        for key, array in flat.items():
            tensor = torch.tensor(np.asarray(array), device=device)
            tensor = tensor.permute(_TO_TORCH[tensor.ndim]).contiguous()
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=_FORMATS[layout])
            tensors[key] = tensor.requires_grad_(train and collection == "params")
    bfloat16 = {"float32": False, "bfloat16": True}[dtype]
    return Network(name, tensors, train, bfloat16=bfloat16)


def program(
    *,
    row: str,
    student: str,
    teacher: str,
    student_variables: Mapping[str, Any],
    teacher_variables: Mapping[str, Any],
    images: np.ndarray,
    labels: np.ndarray,
    weights: Mapping[str, float],
    layout: str,
    dtype: str = "float32",
    device: str = "cpu",
    compiled: bool = False,
    matmul_precision: str = "high",
    **sgd: float,
) -> Program:
    """Build the training step of a row, and run its first step without the update.

    Args:
      row: ``"none"``, or terms joined by ``"+"``: kd, at, min_l2, flip_symmetry, gradient_at.
      student: its name for ``at_jax.models.build``.
      teacher: likewise; ignored, like its variables, if no term needs a teacher.
      student_variables: ``{"params": ..., "batch_stats": ...}`` of Flax.
      teacher_variables: likewise.
      images: normalized, ``(B, H, W, C)``.
      labels: ``(B,)``.
      weights: beta of each of ``Objective.weighted_terms``.
      layout: of images and kernels in memory, one of ``LAYOUTS``.
      dtype: ``"float32"``, or ``"bfloat16"`` for autocast around the forward passes.
      device: ``"cpu"`` or ``"cuda"``.
      compiled: compile loss and gradient with ``torch.compile``; the update is not compiled.
      matmul_precision: on a GPU: ``"high"`` is TF32, the default of XLA, ``"highest"`` float32.
      **sgd: ``lr``, ``momentum`` and ``weight_decay`` of ``torch.optim.SGD``.

    Returns:
      The program.

    Raises:
      UserError: if a term is not implemented here.
    """
    if not has_row(row):
        known = ", ".join(sorted(_WITH_TEACHER | _ON_J))
        raise UserError(f"PyTorch rows are none or terms of {known} joined by '+', got {row!r}")
    parts = set(row.split("+")) - {"none"}
    if device == "cuda":
        torch.backends.cudnn.benchmark = True  # as XLA, search for the fastest algorithms
        torch.set_float32_matmul_precision(matmul_precision)
        torch.backends.cudnn.allow_tf32 = matmul_precision != "highest"
    options = {"layout": layout, "dtype": dtype, "device": device}
    net_s, net_t = _network(student, student_variables, True, **options), None
    if parts & _WITH_TEACHER:
        net_t = _network(teacher, teacher_variables, False, **options)
    x = torch.tensor(images, device=device).permute(0, 3, 1, 2)
    # Set here because torch.compile of PyTorch 2.11 cannot trace it.
    x = x.contiguous(memory_format=_FORMATS[layout]).requires_grad_(bool(parts & _ON_J))
    y = torch.tensor(labels, dtype=torch.int64, device=device)
    loss = functools.partial(_loss, parts, weights, net_s, net_t, x, y)
    parameters = {name: t for name, t in net_s.tensors.items() if t.requires_grad}
    return Program(loss, parameters, compiled, **sgd)
