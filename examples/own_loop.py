"""Attention transfer in your own training loop: losses only, without config, trainer or data package.

    python -m examples.own_loop

Needs jax, flax, optax and chex. Trains a small student on random images with cross-entropy and attention
transfer from a fixed teacher.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from at_jax import intermediates, losses, models

STUDENT = models.build("wrn_10_0.5", num_classes=4)
TEACHER = models.build("wrn_10_1", num_classes=4)
POINTS = ("group1", "group2", "group3")
BETA = 100.0
OPTIMIZER = optax.sgd(0.05, momentum=0.9)


def loss_fn(params, batch_stats, teacher_variables, images, labels):
    """Compute the mean of cross-entropy + beta * attention transfer; the losses are per example, (B,)."""
    logits, mutated = STUDENT.apply(
        {"params": params, "batch_stats": batch_stats},
        images,
        train=True,
        mutable=["batch_stats", "intermediates"],
    )
    _, sown = TEACHER.apply(teacher_variables, images, train=False, mutable=["intermediates"])
    taps_s, taps_t = intermediates.collect(mutated), intermediates.collect(sown)
    attention = sum(losses.attention_transfer(taps_s[p], taps_t[p]) for p in POINTS)
    cross_entropy = losses.cross_entropy(logits, labels)
    return jnp.mean(cross_entropy + BETA * attention), (mutated["batch_stats"], jnp.mean(attention))


@functools.partial(jax.jit, donate_argnums=(0, 1, 2))
def update(params, batch_stats, opt_state, teacher_variables, images, labels):
    """Update the student. The teacher is not differentiated, because it is not the first argument."""
    (loss, (batch_stats, attention)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
        params, batch_stats, teacher_variables, images, labels
    )
    updates, opt_state = OPTIMIZER.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), batch_stats, opt_state, loss, attention


def main(steps: int = 30) -> list[float]:
    """Train, and return the attention loss of every step."""
    key_images, key_labels, key_student, key_teacher = jax.random.split(jax.random.key(0), 4)
    images = jax.random.normal(key_images, (16, 16, 16, 3))
    labels = jax.random.randint(key_labels, (16,), 0, 4)
    variables = jax.jit(STUDENT.init)(key_student, images)
    teacher_variables = jax.jit(TEACHER.init)(key_teacher, images)
    params, batch_stats = variables["params"], variables["batch_stats"]
    opt_state = OPTIMIZER.init(params)
    history = []
    for step in range(steps):
        params, batch_stats, opt_state, loss, attention = update(
            params, batch_stats, opt_state, teacher_variables, images, labels
        )
        history.append(float(attention))
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step:2}  loss {float(loss):.4f}  attention {history[-1]:.6f}")
    return history


if __name__ == "__main__":
    main()
