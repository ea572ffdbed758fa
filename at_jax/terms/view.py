"""A network's forward pass over a batch, and its gradients with respect to the images."""

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state, set_current_trace, take_current_trace

from at_jax import freezing, intermediates, losses
from at_jax.checks import check_floating, check_positive
from at_jax.errors import UserError

__all__ = ["PerExample", "View", "view_network"]

_T = TypeVar("_T")
# (logits (B, K)) -> (B,), or (logits, taps) -> (B,).
PerExample = Callable[..., jax.Array]


class View:
    """One network's forward pass over a batch.

    The pass is linearized once, with respect to the images. Every input gradient is a transposition of
    that linear map, so any number of them share one forward pass.

    Views may be used within transformations that begin after the view was made, such as
    :func:`jax.checkpoint` in a term. Gradients of the cross-entropy are computed outside of them, once.
    Those of other functions, and results of :meth:`kept`, are computed again in another transformation.

    Args:
      forward: images to ``((logits, taps), mutated)``, where ``mutated`` is not differentiated.
      images: normalized, ``(B, H, W, C)``.
      labels: ``(B,)``, or soft labels ``(B, K)``.
      frozen: stop the gradients of all results of this view (for a teacher).

    Attributes:
      logits: ``(B, K)``.
      taps: transfer point to activation, ``{"group1": (B, H, W, C), ...}``.
      mutated: collections that the pass has changed.
    """

    def __init__(
        self,
        forward: Callable[[jax.Array], tuple[tuple[jax.Array, Mapping[str, jax.Array]], Any]],
        images: jax.Array,
        labels: jax.Array,
        *,
        frozen: bool = False,
    ):
        self._forward = forward
        outputs, self._linear, self.mutated = jax.linearize(forward, images, has_aux=True)
        self._outputs = jax.lax.stop_gradient(outputs) if frozen else outputs
        self.logits, self.taps = self._outputs
        self._images, self._labels, self._frozen = images, labels, frozen
        with take_current_trace() as self._trace:
            pass
        self._state = get_opaque_trace_state()
        # Key to results, each with the trace of its arrays, which are invalid outside of it. Gradients of
        # functions have their ids as keys, and the functions are kept, so that no id is used twice.
        self._gradients: dict[Hashable, list[tuple[Any, Any]]] = {}
        self._kept: dict[Hashable, list[tuple[Any, Any]]] = {}

    def at(self, images: jax.Array) -> "View":
        """Apply the network to other images; the same images give this view."""
        if images is self._images:
            return self
        return View(self._forward, images, self._labels, frozen=self._frozen)

    @functools.cached_property
    def cross_entropy(self) -> jax.Array:
        """Cross-entropy with the labels, ``(B,)``."""
        with set_current_trace(self._trace):
            return losses.cross_entropy(self.logits, self._labels)

    def kept(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return the result of ``make``, computed at the first call with this key in a transformation.

        Caches values that both ``values`` and ``measures`` of a term need, such as an input gradient of a
        function that reads the batch.

        Args:
          key: identifies everything that ``make`` reads in addition to this view, such as the term and its
            batch.
          make: called without arguments.
        """
        return self._once(self._kept, key, make)

    def _once(self, cache: dict, key: Hashable, make: Callable[[], _T]) -> _T:
        """Result of ``make`` from this trace or from that of the view, which encloses it."""
        state = get_opaque_trace_state()
        results = cache.setdefault(key, [])
        for computed_in, result in results:
            if computed_in in (state, self._state):
                return result
        results.append((state, make()))
        return results[-1][1]

    def gradient(self, of: PerExample | None = None, *, temperature: float = 1.0) -> jax.Array:
        """Gradient of the sum of ``of`` over examples with respect to the images.

        Layers after the last one that ``of`` reads are not differentiated.

        Args:
          of: a function of the logits ``(B, K)``, or of the logits and the taps, that returns ``(B,)``;
            parameters with a default are not set. None means the cross-entropy. The gradient of a function
            object, or of the cross-entropy at a temperature, is computed only once in a transformation.
          temperature: T > 0 of the cross-entropy, T * CE(z / T); unused with ``of``. It may not be traced.

        Returns:
          ``(B, H, W, C)``.

        Raises:
          UserError: if ``of`` does not return floating point ``(B,)``, or T is not a finite number above 0.
        """
        temperature = check_positive("View.gradient", "temperature", temperature)
        if of is not None:
            return self._once(self._gradients, id(of), lambda: (of, self._transpose(of)))[1]

        def tempered(logits: jax.Array) -> jax.Array:
            if temperature == 1:
                return losses.cross_entropy(logits, self._labels)
            return temperature * losses.cross_entropy(logits / temperature, self._labels)

        # Its gradient serves all transformations, such as the jax.grad of each of several students of one
        # teacher, because it reads nothing but this view.
        key = ("cross_entropy", temperature)
        with set_current_trace(self._trace):
            return self._once(self._gradients, key, lambda: self._transpose(tempered))

    def _transpose(self, of: PerExample) -> jax.Array:
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        # A parameter with a default is not meant for the taps: it binds a loop variable, for example.
        required = [
            parameter
            for parameter in inspect.signature(of).parameters.values()
            if parameter.kind in positional and parameter.default is inspect.Parameter.empty
        ]
        takes_taps = len(required) > 1

        def total(outputs):
            logits, taps = outputs
            values = of(logits, taps) if takes_taps else of(logits)
            if jnp.shape(values) != self._images.shape[:1]:
                raise UserError(
                    f"View.gradient: the function must return one number per example, shape "
                    f"{self._images.shape[:1]}, got {jnp.shape(values)}: do not take the mean in it"
                )
            check_floating("View.gradient", "integers have no gradient", **{"the result": values})
            return jnp.sum(values)

        leaves, tree = jax.tree.flatten(self._outputs)
        # Integers, such as routing indices among the taps, have no gradient.
        read = _used_inputs(total, self._outputs)
        used = [i for i in read if jnp.issubdtype(leaves[i].dtype, jnp.floating)]
        if not used:
            return jnp.zeros_like(self._images)

        def of_used(values):
            given = dict(zip(used, values, strict=True))
            return total(tree.unflatten([given.get(i, leaf) for i, leaf in enumerate(leaves)]))

        cotangents = jax.grad(of_used)([leaves[i] for i in used])

        # Outputs without a cotangent are left out, not given zeros: the transposition then skips the
        # layers that lead to them alone.
        def linear(images):
            outputs = jax.tree.leaves(self._linear(images))
            return [outputs[i] for i in used]

        pull_back = jax.linear_transpose(linear, self._images)
        (gradient,) = pull_back(cotangents)
        return jax.lax.stop_gradient(gradient) if self._frozen else gradient


def _used_inputs(function: Callable[[Any], jax.Array], argument: Any) -> list[int]:
    """Indices of the leaves of ``argument`` that ``function`` reads."""
    jaxpr = jax.make_jaxpr(function)(argument).jaxpr
    read = [variable for equation in jaxpr.eqns for variable in equation.invars]
    return [
        index
        for index, variable in enumerate(jaxpr.invars)
        if any(variable is other for other in read)
    ]


def view_network(
    module: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    *,
    paths: Sequence[str] = (),
    mutable: Sequence[str] | None = (),
    keys: jax.Array | None = None,
    frozen: bool = False,
    freeze: Sequence[str] = (),
    prepare: Callable[[jax.Array], jax.Array] | None = None,
    **kwargs: Any,
) -> View:
    """Apply a network.

    Args:
      module: the network.
      variables: its variables.
      images: normalized, ``(B, H, W, C)``.
      labels: ``(B,)``, or soft labels ``(B, K)``.
      paths: submodules whose output is captured as a transfer point.
      mutable: collections that the module may change; None for all but ``params``.
      keys: PRNG keys ``(B,)``; the key of the first example seeds the module's random numbers.
      frozen: as for :class:`View`.
      freeze: modules that are called in evaluation mode, see :mod:`at_jax.freezing`.
      prepare: function from these images to those of the network, for example of another size. It is part
        of the forward pass: gradients are with respect to ``images``.
      **kwargs: for ``module.apply``: ``train``, ...

    Raises:
      UserError: if a point is computed more than once, the module does not return one array, or there are
        keys but no examples.
    """

    def forward(images):
        if prepare is not None:
            images = prepare(images)
        with freezing.in_evaluation_mode(freeze):
            logits, taps, mutated = intermediates.forward(
                module, variables, images, paths=paths, check_paths=False, mutable=mutable,
                rngs=_rngs(keys), **kwargs,
            )  # fmt: skip
        if not hasattr(logits, "shape"):
            raise UserError(
                f"{type(module).__name__} must return logits (B, K), got {type(logits).__name__}: return "
                "the logits alone, and tap the activations"
            )
        return (logits, taps), mutated

    return View(forward, images, labels, frozen=frozen)


def _rngs(keys: jax.Array | None) -> dict[str, jax.Array] | None:
    if keys is None:
        return None
    if keys.shape[0] == 0:
        raise UserError("keys must have one PRNG key per example, got none: skip an empty batch")
    key = jax.random.fold_in(keys[0], 1)
    # Flax draws streams of other names from "params".
    return {"params": key, "dropout": jax.random.fold_in(key, 1)}
