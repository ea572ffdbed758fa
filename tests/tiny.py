"""A network that compiles in a moment, and the other parts of a training step."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from at_jax import intermediates
from at_jax.models import layers
from at_jax.objective import Objective
from at_jax.terms import AttentionTransfer
from at_jax.training import state, step
from at_jax.training.components import optimizers

SIZE, CHANNELS, CLASSES = 6, 2, 3

# Most of a test's time is LLVM's; the program that XLA hands to it is the same.
QUICK = {"xla_backend_optimization_level": 0}
jit = functools.partial(jax.jit, compiler_options=QUICK)


class TinyNet(nn.Module):
    """Two strided convolutions and a classifier; taps early and late, named by the caller."""

    widths: tuple[int, int] = (3, 4)
    points: tuple[str, str] = ("early", "late")
    batch_norm: bool = True
    bn_axis_name: str | None = None

    @nn.compact
    def __call__(self, images, *, train=False):
        x = images
        for index, (width, point) in enumerate(zip(self.widths, self.points, strict=True)):
            x = layers.conv(width, 3, stride=1 + index, name=f"conv{index}")(x)
            if self.batch_norm:
                x = layers.batch_norm(
                    x, train=train, dtype=x.dtype, axis_name=self.bn_axis_name, name=f"bn{index}"
                )
            x = nn.relu(x)
            intermediates.tap(self, point, x)
        return layers.classifier(jnp.mean(x, axis=(1, 2)), CLASSES, x.dtype)


POINTS = (("early", "early"), ("late", "late"))


def prepare(key, images, positions):
    """Normalisation without augmentation."""
    del key, positions
    return images.astype(jnp.float32) / 128 - 1


def batch(size=8, steps=None, seed=0):
    """uint8 images that all differ, labels, and places in the global batch."""
    rng = np.random.default_rng(seed)
    lead = (size,) if steps is None else (steps, size)
    return {
        "image": rng.integers(0, 256, (*lead, SIZE, SIZE, CHANNELS)).astype(np.uint8),
        "label": rng.integers(0, CLASSES, lead).astype(np.int32),
        "position": np.broadcast_to(np.arange(size, dtype=np.int32), lead),
    }


def objective(student=None, teacher=None, *terms, **kwargs):
    """Attention transfer between two tiny networks, unless other terms are given."""
    terms = terms or (AttentionTransfer(),)
    return Objective(student or TinyNet(), teacher or TinyNet((5, 6)), terms, POINTS, **kwargs)


def filled(shapes, seed=0):
    """Variables of these shapes: He's kernels, unit scales and variances, no bias, drawn by NumPy."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            return jnp.asarray(rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in), leaf.dtype)
        return jnp.full(leaf.shape, float(kind in ("scale", "var")), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def teacher_variables(objective, seed=7):
    """Variables of a teacher whose running statistics are not those of initialization."""
    images = jnp.zeros((1, SIZE, SIZE, CHANNELS))
    variables = filled(jax.eval_shape(objective.teacher.init, jax.random.key(0), images), seed)
    rng = np.random.default_rng(seed)
    statistics = jax.tree.map(
        lambda x: jnp.asarray(x + rng.uniform(-0.3, 0.3, x.shape), x.dtype),
        variables.get("batch_stats", {}),
    )
    return variables | {"batch_stats": statistics}


def sgd():
    return optimizers.sgd(0.1, momentum=0.9, weight_decay=5e-4)


def create(objective, optimizer=None, modules=None, taps=None, seed=0):
    """`state.create` without compiling an initialization, which takes longer than a step."""
    optimizer = optimizer or sgd()
    image = (SIZE, SIZE, CHANNELS)
    make = functools.partial(
        state.create,
        objective.student,
        modules or {},
        optimizer,
        image_shape=image,
        taps=taps or {},
    )
    shapes = jax.eval_shape(lambda key: make(key=key), jax.random.key(0))
    params = filled(shapes.params, seed)
    return shapes.replace(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=filled(shapes.collections),
        opt_state=optimizer.init(params),
    )


def bound(objective, optimizer=None, *, several=False, beta=10.0, **static):
    """`train_step` (or `train_steps`) of (state, teacher, key, batch) alone."""
    weights = {name: optax.constant_schedule(beta) for name in objective.weighted_terms}
    options = {"optimizer": optimizer or sgd(), "weights": weights, "prepare": prepare} | static
    function = step.train_steps if several else step.train_step
    return functools.partial(function, objective=objective, **options)


def largest_deviation(tree, other):
    """Over the leaves: the largest difference as a share of the leaf's largest value."""

    def deviation(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.max(np.abs(a - b), initial=0) / max(np.max(np.abs(b), initial=0), 1e-30)

    # max() would drop a NaN that is not first.
    return float(np.max(jax.tree.leaves(jax.tree.map(deviation, tree, other))))


@functools.cache
def networks(student, teacher):
    """Parameters and collections of the student, variables of the teacher."""
    pair = objective(student, teacher)
    created = create(pair)
    return created.params, created.collections, teacher_variables(pair)
