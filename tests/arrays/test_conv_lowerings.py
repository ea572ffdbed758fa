"""Forms of the operations of a convolution for CPU: which one a shape gets, and that all equal lax."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import assert_close, closed_conv, derivatives, lax_conv, operands
from jax import export

from at_jax import models
from at_jax.conv_lowerings import Window, as_lax, cpu, dense, pixels, weight_grad, winograd


def window(image=(8, 8), kernel=(3, 3), strides=(1, 1), padding=None, dilation=(1, 1)):
    padding = padding or tuple((k // 2, k // 2) for k in kernel)
    return Window(image, kernel, strides, padding, dilation)


@pytest.mark.parametrize(
    ("channels", "features", "changes", "expected"),
    [
        (3, 16, {}, 4),
        (7, 16, {}, 4),
        (8, 16, {}, 1),
        (3, 17, {}, 1),
        (3, 16, {"image": (8, 6)}, 2),  # a width that 4 does not divide
        (3, 16, {"image": (8, 7)}, 1),
        (3, 16, {"kernel": (1, 1)}, 1),
        (3, 16, {"kernel": (1, 3)}, 4),
        (3, 16, {"dilation": (1, 2), "padding": ((1, 1), (2, 2))}, 1),
        (3, 16, {"strides": (2, 2)}, 4),
        (3, 16, {"strides": (2, 2), "padding": ((1, 1), (1, 0))}, 4),
        # The last column of the images is not read.
        (3, 16, {"kernel": (2, 2), "strides": (2, 2), "padding": ((0, 0), (0, 0)), "image": (9, 9)}, 1),
    ],
)  # fmt: skip
def test_packed_pixels_at_the_boundaries_of_the_rule(channels, features, changes, expected):
    assert dense.packed_pixels(channels, features, window(**changes)) == expected


@pytest.mark.parametrize(
    ("channels", "changes", "expected"),
    [
        (16, {}, True),
        (17, {}, False),
        (16, {"strides": (1, 1)}, False),
        (16, {"strides": (1, 2)}, True),
        (16, {"kernel": (1, 1)}, False),
        (16, {"dilation": (2, 2), "padding": ((2, 2), (2, 2))}, False),
        # Pixels of g that no cell sees would need negative padding.
        (16, {"kernel": (2, 2), "padding": ((2, 2), (2, 2))}, False),
    ],
)
def test_uses_cells_at_the_boundaries_of_the_rule(channels, changes, expected):
    assert (
        dense.input_grad_uses_cells(channels, window(**{"strides": (2, 2), **changes})) == expected
    )


@pytest.mark.parametrize(
    ("channels", "features", "changes", "itemsize", "expected"),
    [
        (32, 32, {}, 4, "pairs"),
        (32, 32, {}, 8, "pairs"),
        (32, 32, {}, 2, "rows"),
        (31, 31, {}, 4, "rows"),
        (64, 32, {}, 4, "pairs"),
        (32, 33, {}, 4, "rows"),
        (32, 32, {"image": (7, 8)}, 4, "pairs"),
        (32, 32, {"image": (8, 7)}, 4, "rows"),
        (32, 32, {"kernel": (5, 3)}, 4, "pairs"),
        (32, 32, {"kernel": (3, 5)}, 4, "rows"),
        (32, 32, {"dilation": (2, 1)}, 4, "pairs"),
        (32, 32, {"dilation": (1, 2), "padding": ((1, 1), (2, 2))}, 4, "rows"),
        (32, 32, {"strides": (1, 2)}, 4, "taps"),
        (32, 32, {"kernel": (1, 1)}, 4, "taps"),
    ],
)
def test_form_of_the_weight_gradient_at_the_boundaries_of_the_rule(
    channels, features, changes, itemsize, expected
):
    assert weight_grad.form(channels, features, window(**changes), itemsize) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kernel": (7, 8), "strides": (2, 2)}, True),
        ({"kernel": (7, 8), "strides": (2, 1)}, True),
        ({"kernel": (7, 8)}, False),
        ({"kernel": (7, 7), "strides": (2, 2)}, False),
        ({"kernel": (7, 8), "strides": (2, 2), "dilation": (1, 2)}, False),
    ],
)
def test_weight_gradient_uses_cells_at_the_boundaries_of_the_rule(changes, expected):
    assert weight_grad.weight_grad_uses_cells(window((32, 32), **changes)) == expected


@pytest.mark.parametrize(
    ("batch", "channels", "features", "changes", "expected"),
    [
        (4, 32, 32, {}, True),
        (4, 31, 32, {}, False),
        (4, 32, 31, {}, False),
        (4, 32, 32, {"image": (7, 9)}, True),
        (4, 32, 32, {"kernel": (3, 1)}, False),
        (4, 32, 32, {"strides": (1, 2)}, False),
        (4, 32, 32, {"dilation": (2, 1), "padding": ((2, 2), (1, 1))}, False),
        (4, 512, 512, {"image": (8, 8)}, True),  # 4 * 16 tiles: an eighth of the channels
        (3, 512, 512, {"image": (8, 8)}, False),
        (4, 64, 64, {"image": (64, 64)}, True),  # 8 MiB of transformed pixels an image
        (4, 64, 65, {"image": (64, 64)}, False),
        ("b", 32, 32, {}, False),
    ],
)
def test_winograd_is_chosen_at_the_boundaries_of_the_rule(
    batch, channels, features, changes, expected
):
    batch = export.symbolic_shape("b")[0] if batch == "b" else batch
    assert winograd.is_chosen(batch, channels, features, window(**changes)) == expected


def test_slices_are_equal_where_a_divisor_is_large_enough_and_otherwise_nearly():
    for batch, most in itertools.product((1, 6, 7, 64, 126, 127), (0, 1, 2, 3, 5, 20, 64, 200)):
        found, fits = pixels.slice_size(batch, most), min(max(most, 1), batch)
        divisor = max(n for n in range(1, fits + 1) if batch % n == 0)
        slices = -(-batch // fits)  # as few as possible
        assert found == (divisor if 2 * divisor >= fits else -(-batch // slices))
        assert 1 <= found <= fits and 2 * found >= fits
    assert pixels.images_per_slice(64, 2**30) == 1


@pytest.mark.parametrize(("batch", "size"), [(7, 3), (6, 3), (3, 3), (3, 8), (7, 1)])
def test_map_slices_includes_the_last_smaller_one(batch, size):
    x = jnp.arange(2.0 * batch).reshape(batch, 2)
    found = tiny.jit(lambda x: pixels.map_slices(lambda part: part[:, :1] ** 2, x, size))(x)
    np.testing.assert_array_equal(found, x[:, :1] ** 2)


# (channels, features, window): every form, layers of a WRN-16-1, odd sizes, unread and padded edges.
CASES = [
    (3, 16, window((8, 8))),
    (16, 16, window((8, 8))),
    (16, 32, window((8, 8), strides=(2, 2))),
    (5, 9, window((9, 7), (4, 3), (3, 2), ((0, 2), (1, 1)))),
    (32, 32, window((6, 8))),
    (48, 33, window((5, 4), (5, 3))),
    (33, 48, window((5, 4))),
    (16, 24, window((8, 8), (1, 1), (2, 2))),
    (32, 32, window((8, 9))),
    (40, 64, window((7, 5), padding=((0, 2), (-1, 2)))),
    (32, 34, window((9, 8), (3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2))),
    (4, 16, window((7, 7), (3, 2), (2, 3), ((1, 0), (0, 2)))),
    (3, 8, window((17, 16), (8, 8), (8, 8), ((0, 0), (0, 0)))),
    (3, 5, window((20, 17), (11, 9), (4, 3), ((2, 3), (-1, 4)))),
]


def arrays(channels, features, shape, dtype, batch=4):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    x = draw(batch, *shape.image, channels)
    return x, draw(*shape.kernel, channels, features), draw(batch, *shape.output, features)


@pytest.mark.parametrize(
    ("case", "batch"),
    [*((case, 4) for case in CASES), *((CASES[i], 13) for i in (0, 4, 8))],
    ids=str,
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-13)])
def test_operations_equal_those_of_lax(monkeypatch, case, batch, dtype, tolerance):
    # Slices of a few images, so that there is more than one; the last of 13 images is smaller.
    monkeypatch.setattr(pixels, "SLICE_BYTES", 2**15 if batch == 4 else 2**18)
    with jax.enable_x64(dtype == "float64"):
        x, w, g = arrays(*case, dtype, batch)
        shape = case[2]
        for name, operands_ in (
            ("forward", (x, w)),
            ("input_grad", (g, w)),
            ("weight_grad", (x, g)),
        ):
            found, expected = (
                tiny.jit(functools.partial(getattr(m, name), window=shape))(*operands_)
                for m in (cpu, as_lax)
            )
            assert found.dtype == expected.dtype == dtype
            assert_close(found, expected, tolerance)


@pytest.mark.parametrize(
    "case",
    [*CASES[2:5], *(pytest.param(c, marks=pytest.mark.slow) for c in CASES[:2] + CASES[5:])],
    ids=str,
)
def test_second_derivatives_in_float64_equal_those_of_lax(case):
    with jax.enable_x64(True):
        x, w, _ = arrays(*case, "float64", batch=2)
        w /= np.sqrt(
            w[..., 0].size
        )  # activations of size 1: the sine of large ones amplifies rounding
        geometry = case[2].strides, case[2].padding, case[2].dilation
        results = [
            tiny.jit(derivatives(lambda x, w, conv=conv: conv(x, w, *geometry)))(x, w)
            for conv in (closed_conv, lax_conv)
        ]
        assert_close(*results, 1e-13)


@pytest.mark.parametrize("case", CASES[:5], ids=str)
def test_operations_in_bfloat16_are_as_exact_as_those_of_lax(case):
    x, w, g = arrays(*case, jnp.bfloat16)
    for name, operands_ in (("forward", (x, w)), ("input_grad", (g, w)), ("weight_grad", (x, g))):
        exact = getattr(as_lax, name)(*(a.astype(jnp.float32) for a in operands_), case[2])
        assert_close(getattr(cpu, name)(*operands_, case[2]).astype(jnp.float32), exact, 0.01)


@pytest.mark.parametrize("empty", ["batch", "channels", "features"])
def test_operations_of_empty_arrays_are_empty_or_zero(empty):
    sizes = {"batch": 2, "channels": 3, "features": 4, empty: 0}
    x, w, g = arrays(sizes["channels"], sizes["features"], window(), "float32", sizes["batch"])
    assert cpu.forward(x, w, window()).shape == g.shape
    assert cpu.input_grad(g, w, window()).shape == x.shape
    found = cpu.weight_grad(x, g, window())
    assert found.shape == w.shape and not np.any(found)


@pytest.mark.parametrize(("name", "size"), [("wrn_16_1", 32), ("resnet_18", 64)])
def test_networks_are_exported_with_a_symbolic_batch(name, size):
    module = models.build(name)
    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    fixed = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), fixed)

    def gradient(variables, images):
        def total(params):
            logits, _ = module.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(logits**2)

        return jax.grad(total)(variables["params"])

    for function in (module.apply, gradient):
        exported = export.export(jax.jit(function), platforms=["cpu"])(variables, images)
        assert exported.in_avals[-1].shape[0] == batch


def test_exported_gradient_equals_the_gradient():
    x, w = operands((8, 8), channels=(32, 32), batch=4)
    (batch,) = export.symbolic_shape("b")
    gradient = jax.grad(lambda w, x: jnp.sum(jnp.sin(closed_conv(x, w, (1, 1)))))
    shape = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    exported = export.export(jax.jit(gradient))(jax.ShapeDtypeStruct(w.shape, w.dtype), shape)
    assert_close(exported.call(w, x), gradient(w, x))


@pytest.mark.parametrize("low", [-12, -9, -7, -3, -2, -1, 0, 2])
@pytest.mark.parametrize("spread", [1, 3])
def test_place_dilates_shifts_and_crops(low, spread):
    image = np.arange(1.0, 5, dtype=np.float32)
    wide = np.zeros(40, np.float32)  # pixel 0 of the result is pixel 20
    wide[20 + low : 20 + low + 3 * spread + 1 : spread] = image
    found = pixels.place(jnp.asarray(image)[None], 1, low, 8, spread=spread)
    np.testing.assert_array_equal(found[0], wide[20:28])


@pytest.mark.parametrize("value", [np.inf, 3e38], ids=str)
def test_winograd_of_a_value_out_of_range_changes_no_result_that_does_not_see_it(value):
    # Results that see it may be NaN where the direct form gives an infinity, or overflow.
    x, w, _ = arrays(32, 32, window(), "float32")
    large = x.at[0, 3:5, 4, 0].set(value)
    found, finite = (tiny.jit(lambda x: winograd.forward(x, w, window()))(a) for a in (large, x))
    seen = np.zeros(found.shape[:3], bool)
    seen[0, 2:6, 3:6] = True
    assert not np.all(np.isfinite(found[seen]))
    assert_close(found[~seen], finite[~seen], 1e-6)
