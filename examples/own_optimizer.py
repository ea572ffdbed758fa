"""An optax optimizer passed to the trainer: AdamW whose rate also drops when the loss stops falling.

    python -m examples.own_optimizer

The learning-rate schedule comes from the config: here a warm-up and a cosine. AdamW alone needs no code:
``--config.optimizer.name=adamw --config.optimizer.schedule=cosine --config.optimizer.warmup_epochs=2``.
"""

import optax

from at_jax import loop
from at_jax.training import config_files


def adamw(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Build AdamW; reduce_on_plateau receives the loss of every step."""
    return optax.chain(
        optax.adamw(learning_rate, weight_decay=1e-3),
        optax.contrib.reduce_on_plateau(factor=0.5, patience=100),
    )


def main(workdir: str = "runs/own_optimizer", **changes) -> dict:
    """Train teacher and student with AdamW; ``changes`` are config keys."""
    config = config_files.load("digits", "method=at")
    config.optimizer.learning_rate = 0.003
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 2.0
    config.update_from_flattened_dict(changes)
    return loop.train_and_evaluate(config, workdir, optimizer=adamw)


if __name__ == "__main__":
    main()
