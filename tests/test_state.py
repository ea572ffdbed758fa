"""The state, and the update rule against PyTorch's SGD written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from at_jax import state
from at_jax.models import Adapter
from at_jax.objective import Objective


def test_sgd_is_the_reference_rule():
    # torch.optim.SGD(dampening=0, nesterov=False): g += wd * p; buffer = m * buffer + g (the first
    # buffer is g); p -= rate * buffer. On every parameter, one-dimensional ones too.
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(2, 3)), "scale": rng.normal(size=3), "bias": np.ones(1)}
    gradients = [{k: rng.normal(size=v.shape) for k, v in start.items()} for _ in range(4)]
    rates = [0.1, 0.1, 0.02, 0.02]  # momentum survives the drop at step 2
    momentum, weight_decay = 0.9, 0.05

    expected = {name: value.copy() for name, value in start.items()}
    buffers = {name: np.zeros_like(value) for name, value in start.items()}
    for rate, gradient in zip(rates, gradients, strict=True):
        for name, value in expected.items():
            buffers[name] = momentum * buffers[name] + gradient[name] + weight_decay * value
            value -= rate * buffers[name]

    optimizer = state.sgd(
        lambda step: jnp.where(step < 2, 0.1, 0.02), momentum=momentum, weight_decay=weight_decay
    )
    to_jax = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)  # noqa: E731
    params = to_jax(start)
    opt_state = optimizer.init(params)

    @jax.jit
    def update(gradient, opt_state, params):
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return jax.tree.map(jnp.add, params, updates), opt_state

    for gradient in gradients:
        params, opt_state = update(to_jax(gradient), opt_state, params)
    for name, value in expected.items():
        np.testing.assert_allclose(params[name], value, rtol=1e-5, err_msg=name)


def test_sgd_by_hand():
    # p = 1, gradient 2, weight decay 0.5: g = 2.5, p = 1 - 0.1 * 2.5 = 0.75. Then g = 2 + 0.375 =
    # 2.375, buffer = 0.9 * 2.5 + 2.375 = 4.625, p = 0.75 - 0.4625 = 0.2875. Nesterov would give 0.1.
    optimizer = state.sgd(0.1, momentum=0.9, weight_decay=0.5)
    params = {"bias": jnp.ones(1)}
    opt_state = optimizer.init(params)
    for expected in (0.75, 0.2875):
        updates, opt_state = optimizer.update({"bias": jnp.full(1, 2.0)}, opt_state, params)
        params = jax.tree.map(jnp.add, params, updates)
        np.testing.assert_allclose(params["bias"], [expected], rtol=1e-6)


def test_create():
    adapter = Adapter((("early", 5),))
    terms = Objective(tiny.TinyNet(), tiny.TinyNet((5, 6)), tiny.POINTS, adapter=adapter)
    image = (tiny.SIZE, tiny.SIZE, tiny.CHANNELS)
    taps = {"early": jax.ShapeDtypeStruct((1, 6, 6, 3), jnp.float32)}
    make = tiny.jit(lambda key: state.create(terms, tiny.sgd(), key, image, taps))
    # The default generator takes five times as long to compile.
    first, again, other = (make(jax.random.key(seed, impl="rbg")) for seed in (0, 0, 1))
    assert first.step == 0 and first.step.dtype == jnp.int32
    assert set(first.params) == {"student", "adapter"}
    assert first.params["adapter"]["early"]["kernel"].shape == (1, 1, 3, 5)
    # The trace of momentum covers all that is trained, and starts at 0.
    trace = [leaf for leaf in jax.tree.leaves(first.opt_state) if leaf.ndim]
    assert len(trace) == len(jax.tree.leaves(first.params))
    assert all(jnp.all(leaf == 0) for leaf in trace)
    for name in ("bn0", "bn1"):
        np.testing.assert_array_equal(first.params["student"][name]["scale"], 1)
        np.testing.assert_array_equal(first.batch_stats[name]["mean"], 0)
    assert tiny.largest_deviation(first.params, again.params) == 0
    assert tiny.largest_deviation(first.params, other.params) > 0
    # The teacher has no place in it: nothing is as wide as its layers but the adapter's output.
    assert first.params["student"]["conv1"]["kernel"].shape[-1] == 4


def test_create_without_normalisation_or_adapter():
    terms = Objective(tiny.TinyNet(batch_norm=False))
    shapes = jax.eval_shape(
        lambda key: state.create(terms, tiny.sgd(), key, (8, 8, 1), {}), jax.random.key(0)
    )
    assert shapes.batch_stats == {} and shapes.params["adapter"] == {}
