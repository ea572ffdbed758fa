"""One dispatch of a tiny network on some devices, from a fixed start."""

import functools

import jax
import tiny

from at_jax.distributed import devices
from at_jax.terms import AttentionTransfer, Distillation

SEED = 3
TERMS = (Distillation(), AttentionTransfer())


def make_objective(bn_axis_name, terms=TERMS):
    """Two tiny networks; the student's BatchNorm is synchronized over the named axis."""
    return tiny.objective(tiny.TinyNet(bn_axis_name=bn_axis_name), None, *terms)


@functools.cache
def mapped_step(count, bn_axis_name, several, beta, terms):
    """Compile a step, or several in one program, for `count` devices; return it with its objective."""
    objective = make_objective(bn_axis_name, terms)
    bound = tiny.bound(objective, several=several, beta=beta, axis_name=devices.AXIS_NAME)
    return objective, devices.map_train(bound, _first(count))


# The weight is as large as the paper's, so that differences between devices become visible.
def dispatch(count, bn_axis_name, batch, *, several=False, beta=1e3, terms=TERMS):
    """Run one dispatch on `count` devices from a fixed start; return state and metrics on the host."""
    objective, mapped = mapped_step(count, bn_axis_name, several, beta, terms)
    start = tiny.create(objective), tiny.teacher_variables(objective), jax.random.key(SEED)
    start = devices.replicate(start, _first(count))
    return jax.device_get(mapped(*start, devices.shard(batch, count, axis=int(several))))


def _first(count):
    return tuple(jax.local_devices()[:count])
