"""The losses: numbers worked by hand, with and without jit."""

import chex
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized

from at_jax import losses


class LossesByHand(chex.TestCase, parameterized.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_cross_entropy(self):
        # softmax(0, log 3) = (1/4, 3/4): -log(1/4) = log 4, -log(3/4) = log(4/3).
        z = jnp.log(jnp.array([[1.0, 3.0], [1.0, 3.0]]))
        result = self.variant(losses.cross_entropy)(z, jnp.array([0, 1]))
        np.testing.assert_allclose(result, np.log([4, 4 / 3]), rtol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # At T = 2 the student's soft targets are (1/4, 3/4), the teacher's (1/2, 1/2):
        # KL(t || s) = 1/2 log(2) + 1/2 log(2/3) = log(2 / sqrt 3), times T^2 = 4.
        (1.0, 4 * np.log(2 / np.sqrt(3))),
        # At T = 1 the student is softmax(0, log 9) = (1/10, 9/10): cross-entropy log 10.
        (0.0, np.log(10)),
        (0.75, 0.75 * 4 * np.log(2 / np.sqrt(3)) + 0.25 * np.log(10)),
    )
    def test_distillation(self, alpha, expected):
        # Temperature and alpha are arguments of the program, not constants of it.
        distil = self.variant(
            lambda s, t, labels, temperature, alpha: losses.distillation(
                s, t, labels, temperature=temperature, alpha=alpha
            )
        )
        student = jnp.array([[0.0, 2 * np.log(3)]], jnp.float32)
        result = distil(student, jnp.zeros((1, 2)), jnp.array([0]), 2.0, alpha)
        np.testing.assert_allclose(result, [expected], rtol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(
        # Positions (3, 4), teacher (4, 3), one channel. p = 1: q = (.6, .8) and (.8, .6), difference
        # (-.2, .2). Code: (.04 + .04) / 2 = .04. Paper: sqrt(.08) / 2.
        ("sum", 1, "code", 0.04),
        ("sum", 1, "paper", np.sqrt(0.08) / 2),
        ("max", 1, "code", 0.04),
        # p = 2: maps (9, 16) and (16, 9), norm sqrt(81 + 256) = sqrt(337), difference 7 / sqrt(337)
        # twice. Code: 2 * 49/337 / 2 = 49/337. Paper: sqrt(98/337) / 2.
        ("sum", 2, "code", 49 / 337),
        ("max", 2, "paper", np.sqrt(98 / 337) / 2),
        # One channel: its map is one number, normalised to 1 on either side.
        ("channel", 2, "code", 0.0),
    )
    def test_attention_transfer(self, kind, p, convention, expected):
        a_s = jnp.array([3.0, -4.0]).reshape(1, 1, 2, 1)
        a_t = jnp.array([-4.0, 3.0]).reshape(1, 1, 2, 1)
        options = {"kind": kind, "p": p, "convention": convention}
        transfer = self.variant(lambda s, t: losses.attention_transfer(s, t, **options))
        np.testing.assert_allclose(transfer(a_s, a_t), [expected], rtol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_channel_attention(self):
        # Channels (3, 4) against (0, 2), p = 1: q = (.6, .8) and (0, 1): (.36 + .04) / 2 = .2.
        a_s = jnp.array([3.0, -4.0]).reshape(1, 1, 1, 2)
        a_t = jnp.array([0.0, 2.0]).reshape(1, 1, 1, 2)
        transfer = self.variant(lambda s, t: losses.attention_transfer(s, t, kind="channel", p=1))
        np.testing.assert_allclose(transfer(a_s, a_t), [0.2], rtol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_activation_transfer(self):
        # Differences 1, 2, 3, 4 over two positions and two channels: (1 + 4 + 9 + 16) / 4 = 7.5.
        a_s = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 1, 2)
        result = self.variant(losses.activation_transfer)(a_s, jnp.zeros_like(a_s))
        np.testing.assert_allclose(result, [7.5], rtol=1e-6)
