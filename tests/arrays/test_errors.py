"""UserError, lists of names in messages, and rank checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from at_jax import losses, maps, models
from at_jax.checks import check_rank
from at_jax.errors import UserError, listed


def test_user_error_is_a_value_error():
    with pytest.raises(ValueError, match="x must be 1"):
        raise UserError("x must be 1")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "none"),
        (["a"], "a"),
        (list("abcde"), "a, b, c, d, e"),
        (list("abcdef"), "a, b, c, d, e and 1 more"),
        (range(100), "0, 1, 2, 3, 4 and 95 more"),
        (iter("ab"), "a, b"),
    ],
)
def test_listed_names_at_most_five(names, expected):
    assert listed(names) == expected


def test_listed_of_nothing_returns_the_given_text():
    assert listed([], "nothing") == "nothing"


def test_check_rank_of_equal_rank_passes():
    arrays = {"a": jnp.ones((1, 2)), "b": np.ones((3, 4)), "c": jax.ShapeDtypeStruct((5, 6), int)}
    check_rank("f", 2, floating=False, **arrays)
    with pytest.raises(UserError, match="f: c must be floating point, got int"):
        check_rank("f", 2, **arrays)
    check_rank("f", 0, a=jnp.ones(()))


@pytest.mark.parametrize("shape", [(), (4,), (4, 3, 2), (4, 3, 2, 1)])
def test_check_rank_of_another_rank_names_function_argument_and_shape(shape):
    with pytest.raises(UserError) as error:
        check_rank("sum_map", 2, good=jnp.ones((1, 1)), bad=jnp.ones(shape))
    assert str(error.value).startswith(f"sum_map: bad must have rank 2, got shape {shape}: ")


class Tensor:
    """An array of another library."""

    dtype = "float32"

    def __init__(self, shape):
        self.shape = shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.cross_entropy(jnp.zeros((4, 3)), jnp.eye(4, 3, dtype=int)),
            "use labels.argmax",
        ),
        (
            lambda: jax.jit(lambda p: maps.sum_map(jnp.ones((1, 2, 2, 1)), p=p))(2.0),
            "static_argnames='p'",
        ),
        (
            lambda: losses.attention_transfer([jnp.ones((1, 2, 2, 1))], jnp.ones((1, 2, 2, 1))),
            "call it for each and add the results",
        ),
        (lambda: losses.cross_entropy(jnp.zeros((2, 3)), [0, 1]), "convert it with jnp.asarray"),
        (
            lambda: maps.sum_map(Tensor((1, 2, 2, 1))),
            "sum_map: a must be an array of JAX or NumPy, got .*Tensor: .*x.numpy",
        ),
        (lambda: maps.normalize(Tensor((1, 4))), "normalize: q must be an array of JAX or NumPy"),
        (
            lambda: losses.cross_entropy(jnp.zeros((2, 3)), jnp.zeros((2, 1), int)),
            r"labels\[:, 0\]",
        ),
        (lambda: maps.sum_map(jnp.ones((2, 2, 1))), "reshape it, or index the batch with .None."),
        (
            lambda: maps.sum_map(jnp.ones((3, 1, 2, 2, 1))),
            "reshape it, or call it once for each layer if nn.scan or nn.vmap stacked them",
        ),
        (
            lambda: models.build("wrn_10_1").init(jax.random.key(0), jnp.ones((2, 3, 32, 32))),
            r"channels first: move them with jnp.moveaxis\(images, 1, -1\)",
        ),
    ],
)
def test_errors_of_users_of_other_libraries_name_the_fix(call, message):
    with pytest.raises(UserError, match=message):
        call()
