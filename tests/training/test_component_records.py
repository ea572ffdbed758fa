"""Texts of optimizers and augmentations, by which a run that is resumed compares them."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from at_jax.training.components.component_records import text_of


@dataclasses.dataclass(frozen=True)
class Darken:
    """An augmentation with an option."""

    factor: float = 0.5

    def __call__(self, key, image):
        return image * self.factor


def partial(**arguments):
    return functools.partial(optax.adam, **arguments)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (partial(b1=0.8), partial(b1=0.7)),
        (partial(b1=np.float32(0.8)), partial(b1=np.float32(0.7))),
        (partial(b1=jnp.asarray(0.8)), partial(b1=jnp.asarray(0.7))),
        (functools.partial(partial(b1=0.8), b2=0.9), functools.partial(partial(b1=0.8), b2=0.8)),
        (partial(mask=Darken(0.1)), partial(mask=Darken(0.2))),
        (Darken(0.1), Darken(0.2)),
    ],
)
def test_text_of_other_arguments_differs(first, second):
    assert text_of(first) != text_of(second)


def test_text_of_is_the_same_in_every_process():
    assert text_of(Darken()) == f"{__name__}:Darken(factor=0.5)"
    assert text_of(partial(mask=optax.sgd)).endswith(f"(mask={text_of(optax.sgd)})")
    assert " at 0x" not in text_of(partial(mask=lambda x: x))
    assert text_of(Darken) == f"{__name__}:Darken"
