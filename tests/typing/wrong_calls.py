"""Calls that a type checker must reject. test_typing.py expects one error on each marked line."""

import jax.numpy as jnp

from at_jax.losses import attention_transfer

a = jnp.ones((1, 4, 4, 3))
attention_transfer(a, a, knd="sum")  # error: no such argument
attention_transfer("text", a)  # error: not an array
attention_transfer(a, a, kind="summ")  # error: no such kind
