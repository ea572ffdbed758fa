"""Predicted passes of a training step, and multiply-adds of a forward pass, worked out by hand."""

import pytest
import tiny

from at_jax import models
from benchmarks.double_backprop import passes


def test_forward_cost_of_two_networks_is_the_number_worked_out_by_hand():
    # TinyNet on 8x8 RGB images: 3x3 from 3 to 3 channels on 8x8, 3x3 from 3 to 4 on 4x4, then 4 to 3.
    whole, first = passes.forward_cost(tiny.TinyNet(), 8)
    assert first == 8 * 8 * 9 * 3 * 3
    assert whole == first + 4 * 4 * 9 * 3 * 4 + 4 * 3
    # Published for WRN-16-1: 26.7 million multiply-adds an image.
    assert passes.forward_cost(models.build("wrn_16_1"), 32)[0] == pytest.approx(26.7e6, rel=0.01)


@pytest.mark.parametrize(
    ("method", "text", "cost"),
    [
        # S = 10, s = 1, T = 40.
        ("none", "3S - s", 29),
        ("kd", "3S - s + T", 69),
        ("at+kd", "3S - s + T", 69),
        ("f_actt", "3S - s + T", 69),
        ("min_l2", "6S - s", 59),
        ("gradient_at", "6S - s + 2T", 139),
        ("gradient_at+at+kd", "6S - s + 2T", 139),
        ("flip_symmetry", "12S - 2s", 118),
        ("flip_symmetry+kd", "12S - 2s + T", 158),
        ("jacobian", "6S - s + 2T", 139),
        ("sobolev", "6S - s + 2T", 139),
        ("map_gradient", "6S - s + 2T", 139),
        # Terms on the same J share it, also with flip_symmetry.
        ("gradient_at+min_l2", "6S - s + 2T", 139),
        ("flip_symmetry+min_l2", "12S - 2s", 118),
        # Each further input gradient adds 3S, and T for a teacher's.
        ("gradient_at+jacobian", "9S - s + 3T", 209),
        ("min_l2+jacobian", "9S - s + 2T", 169),
        ("gradient_at+jacobian+sobolev", "12S - s + 4T", 279),
        ("flip_symmetry+jacobian", "15S - 2s + 2T", 228),
    ],
)
def test_count_of_a_method_is_the_number_worked_out_by_hand(method, text, cost):
    counted = passes.count(method)
    assert str(counted) == text
    assert counted.cost(10, 1, 40) == cost
