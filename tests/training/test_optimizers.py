"""Optimizers of a config, its learning rate, and the weights of its terms over training."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from at_jax import terms
from at_jax.objective import Objective
from at_jax.training import config
from at_jax.training.components import optimizers
from at_jax.training.settings import OptimizerSettings

PARAMS = {"kernel": jnp.full((2, 2), 2.0), "scale": jnp.ones(2), "bias": jnp.full(1, 3.0)}
ZERO = jax.tree.map(jnp.zeros_like, PARAMS)


@pytest.fixture
def standard_promotion():
    """Adam in optax mixes integers and floating point; users do not run under strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def build(rate=0.1, **settings):
    return optimizers.build(OptimizerSettings(**settings), lambda step: jnp.asarray(rate))


def first_update(optimizer, gradient, params=PARAMS):
    return optimizer.update(gradient, optimizer.init(params), params)[0]


def test_sgd_of_several_steps_equals_the_rule_of_pytorch():
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

    optimizer = optimizers.sgd(
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


@pytest.mark.parametrize(
    ("nesterov", "expected"),
    [
        # p = 1, gradient 2, weight decay 0.5: g = 2.5, p = 1 - 0.1 * 2.5 = 0.75. Then g = 2 + 0.375 =
        # 2.375, buffer = 0.9 * 2.5 + 2.375 = 4.625, p = 0.75 - 0.4625 = 0.2875.
        (False, (0.75, 0.2875)),
        # The step is g + 0.9 * buffer: 2.5 + 2.25 = 4.75, p = 0.525. Then g = 2.2625, buffer = 2.25 +
        # 2.2625 = 4.5125, the step 2.2625 + 4.06125 = 6.32375, p = 0.525 - 0.632375 = -0.107375.
        (True, (0.525, -0.107375)),
    ],
)
def test_build_sgd_with_and_without_nesterov_equals_numbers_by_hand(nesterov, expected):
    optimizer = build(momentum=0.9, weight_decay=0.5, nesterov=nesterov)
    params = {"bias": jnp.ones(1)}
    opt_state = optimizer.init(params)
    for value in expected:
        updates, opt_state = optimizer.update({"bias": jnp.full(1, 2.0)}, opt_state, params)
        params = jax.tree.map(jnp.add, params, updates)
        np.testing.assert_allclose(params["bias"], [value], rtol=1e-5)


def test_build_with_defaults_equals_decay_then_momentum_bit_for_bit():
    rate = lambda step: jnp.where(step < 2, 0.1, 0.02)  # noqa: E731
    built = optimizers.build(OptimizerSettings(), rate)
    plain = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, momentum=0.9))
    rng = np.random.default_rng(0)
    ours = theirs = PARAMS
    state_ours, state_theirs = built.init(ours), plain.init(theirs)
    for _ in range(4):
        gradient = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), PARAMS)
        updates, state_ours = built.update(gradient, state_ours, ours)
        ours = optax.apply_updates(ours, updates)
        updates, state_theirs = plain.update(gradient, state_theirs, theirs)
        theirs = optax.apply_updates(theirs, updates)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_build_of_each_name_lowers_the_loss(name, standard_promotion):
    terms = Objective(tiny.TinyNet())
    optimizer = build(0.02, name=name)
    batches = jax.tree.map(lambda x: np.stack([x] * 8), tiny.batch())
    run = tiny.jit(tiny.bound(terms, optimizer, several=True))
    _, measured = run(tiny.create(terms, optimizer), None, jax.random.key(0), batches)
    loss = measured["loss"][0] / measured["loss"][1]
    assert loss[-1] < 0.9 * loss[0]


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_build_adamw_and_lamb_decouple_the_decay(name, standard_promotion):
    # Decay in the gradient would be divided by its own root mean square: an update of the rate itself.
    optimizer = build(name=name, weight_decay=0.5)
    update = first_update(optimizer, ZERO)["kernel"]
    if name == "adamw":
        np.testing.assert_allclose(update, -0.1 * 0.5 * PARAMS["kernel"], rtol=1e-5)
    else:  # LAMB rescales the update to the norm of the parameters
        np.testing.assert_allclose(update, -0.1 * PARAMS["kernel"], rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_build_with_decay_mask_kernels_leaves_biases_and_scales_undecayed(name, standard_promotion):
    masked = first_update(build(name=name, weight_decay=0.5, decay_mask="kernels"), ZERO)
    every = first_update(build(name=name, weight_decay=0.5, decay_mask="all"), ZERO)
    np.testing.assert_array_equal(masked["kernel"], every["kernel"])
    assert jnp.all(masked["kernel"] < 0)
    for key in ("scale", "bias"):
        assert jnp.all(masked[key] == 0) and jnp.all(every[key] < 0)


@pytest.mark.parametrize(
    ("clip", "norm"),
    [(0.0, 5.0), (1.0, 1.0), (10.0, 5.0)],  # 0: no clipping; a smaller gradient is left as it is
)
def test_build_with_clip_norm_bounds_the_gradient(clip, norm):
    gradient = ZERO | {"scale": jnp.array([3.0, 0.0]), "bias": jnp.array([4.0])}
    optimizer = build(1.0, momentum=0.0, weight_decay=0.0, clip_norm=clip)
    update = first_update(optimizer, gradient)
    np.testing.assert_allclose(np.hypot(update["scale"][0], update["bias"][0]), norm, rtol=1e-5)
    np.testing.assert_allclose(update["bias"] / update["scale"][0], 4 / 3, rtol=1e-5)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_reduce_on_plateau_receives_the_loss_of_the_step(accumulation, standard_promotion):
    # No later loss is better than 1 % of the first: after the patience of 1 the rate is halved.
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=0.99)
    optimizer = optax.chain(tiny.sgd(), plateau)
    terms = Objective(tiny.TinyNet())
    run = tiny.jit(tiny.bound(terms, optimizer, several=True, accumulation=accumulation))
    state = tiny.create(terms, optimizer)
    state, measured = run(state, None, jax.random.key(0), tiny.batch(steps=3))
    total, count = measured["loss"]
    np.testing.assert_allclose(state.opt_state[1].best_value, total[0] / count[0], rtol=1e-6)
    assert float(state.opt_state[1].scale) < 1


def settings_of(**changes):
    result = config.default_config()
    result.epochs, result.optimizer.drop_epochs = 4, (1, 2)
    result.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config.settings_of(result)


def weights_of(method, **changes):
    """Weight of each term at the start and the end of each of four epochs of 3 steps."""
    settings = settings_of(method=method, **changes)
    chosen = [settings.terms[name] for name in terms.parts(method)]
    schedules = optimizers.term_weights(settings, 3, chosen)
    steps = [step for epoch in range(4) for step in (3 * epoch, 3 * epoch + 2)]
    return {name: [float(schedule(step)) for step in steps] for name, schedule in schedules.items()}


def test_learning_rate_of_settings_counts_epochs():
    rate = optimizers.learning_rate(
        settings_of(optimizer__drop_epochs=(1, 3), optimizer__warmup_epochs=0.5), 4
    )
    found = [float(rate(step)) for step in (0, 1, 2, 3, 4, 11, 12)]
    np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.1, 0.02, 0.02, 0.004], rtol=1e-5)
    cosine = optimizers.learning_rate(settings_of(optimizer__schedule="cosine"), 4)
    np.testing.assert_allclose([cosine(0), cosine(8), cosine(16)], [0.1, 0.05, 0], atol=1e-7)


def test_term_weights_without_a_begin_are_the_schedules_of_beta():
    assert weights_of("at+kd") == {"at": [1000.0] * 8}
    linear = weights_of("at", transfer__decay="linear", at__beta=12.0)["at"]
    np.testing.assert_allclose(linear, [12, 10, 9, 7, 6, 4, 3, 1], rtol=1e-5)


def test_term_weights_before_begin_epoch_are_zero_and_then_beta():
    found = weights_of("at+min_l2+kd", transfer__begin_epoch=1, at__beta=5.0)
    assert found == {
        "at": [0, 0, 5, 5, 5, 5, 5, 5],
        "min_l2": [0, 0, 1, 1, 1, 1, 1, 1],
        "kd": [0, 0, 1, 1, 1, 1, 1, 1],  # a share, not a weight
    }
    # The decay is not shifted.
    decayed = weights_of("at", transfer__begin_epoch=2, transfer__decay="linear", at__beta=12.0)
    np.testing.assert_allclose(decayed["at"], [0, 0, 0, 0, 6, 4, 3, 1], rtol=1e-5)


def test_term_weights_of_a_term_with_its_own_begin_epoch_override_the_common_one():
    found = weights_of(
        "at+min_l2+kd", transfer__begin_epoch=1, min_l2__begin_epoch=3, kd__begin_epoch=0
    )
    assert found == {
        "at": [0, 0, 1000, 1000, 1000, 1000, 1000, 1000],
        "min_l2": [0, 0, 0, 0, 0, 0, 1, 1],
    }


def test_a_run_in_which_terms_begin_late_adds_them_from_that_step_on():
    objective = tiny.objective(None, None, terms.Distillation(), terms.AttentionTransfer())
    settings = settings_of(method="at+kd", transfer__begin_epoch=1, at__beta=5.0)
    chosen = [settings.terms[name] for name in ("kd", "at")]
    weights = optimizers.term_weights(settings, 2, chosen)
    run = tiny.jit(tiny.bound(objective, several=True, weights=weights))
    teacher = tiny.teacher_variables(objective)
    _, measured = run(tiny.create(objective), teacher, jax.random.key(0), tiny.batch(steps=4))
    loss, hard, soft, attention = (
        np.asarray(measured[name][0])
        for name in ("loss", "loss/cross_entropy", "loss/distillation", "loss/attention")
    )
    np.testing.assert_allclose(loss[:2], hard[:2], rtol=1e-5)
    np.testing.assert_allclose(loss[2:], soft[2:] + 5 * attention[2:], rtol=1e-5)


def test_decay_mask_of_a_whole_state_selects_arrays_of_two_axes():
    params = tiny.create(tiny.objective()).params
    flat = jax.tree_util.tree_leaves_with_path(optimizers.kernels(params))
    selected = {jax.tree_util.keystr(path): flag for path, flag in flat}
    assert {key for key, flag in selected.items() if flag} == {
        key for key in selected if key.endswith("['kernel']")
    }
    assert not all(selected.values())


def test_decay_mask_leaves_out_biases_of_attention():
    attention = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)
    params = attention.init(jax.random.key(0), jnp.ones((1, 3, 8)))["params"]
    for path, flag in jax.tree_util.tree_leaves_with_path(optimizers.kernels(params)):
        assert flag == (path[-1].key == "kernel"), path


@pytest.mark.parametrize(
    ("factory", "reads"),
    [
        (optax.sgd, True),
        (lambda rate: optax.sgd(0.5), False),
        (lambda rate: optax.sgd(rate(0)), False),  # a number
        (lambda rate: optax.inject_hyperparams(optax.sgd)(learning_rate=rate), True),
        (lambda rate: optax.chain(optax.sgd(rate), optax.contrib.reduce_on_plateau()), True),
        (lambda rate: optax.sgd(optax.exponential_decay(1.0, 2, 0.5)), False),
    ],
)
@pytest.mark.usefixtures("standard_promotion")
def test_from_factory_tells_whether_the_learning_rate_is_read(factory, reads):
    params = {"w": jax.ShapeDtypeStruct((3,), jnp.float32)}
    _, found = optimizers.from_factory(factory, lambda step: 0.1, params)
    assert found == reads


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        ({"a": jnp.ones(2)}, {"a": jnp.zeros(2)}, ""),
        ({"a": jnp.ones(2)}, {"a": jnp.ones(3)}, "['a'] float32(2,) before and float32(3,)"),
        (
            {"a": jnp.ones(2), "b": jnp.ones(1)},
            {"a": jnp.ones(2)},
            "['b'] float32(1,) before and nothing",
        ),
        ({}, {"a": jnp.ones(2)}, "['a'] nothing before and float32(2,)"),
        ((jnp.ones(2),), [jnp.ones(2)], "PyTreeDef((*,)) before and PyTreeDef([*])"),
    ],
)
def test_differing_names_what_changed(before, after, difference):
    assert optimizers.differing(before, after) == difference
