"""A user-defined loss term, passed to the trainer: similarity-preserving distillation.

    python -m examples.own_term

The term compares the pairwise similarities of the examples of a batch in student and teacher
(Tung & Mori 2019, arXiv:1907.09682). It needs neither equal widths nor equal classes.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from at_jax import loop, maps
from at_jax.terms import AttentionTransfer, Term
from at_jax.training import config_files


@dataclasses.dataclass(frozen=True)
class SimilarityPreserving(Term):
    """Squared distance of the rows of the batch similarity matrices."""

    name: ClassVar[str] = "similarity"
    beta: ClassVar[float] = 10.0
    compares_taps: ClassVar[str] = "activation"

    def values(self, batch, params) -> jax.Array:
        """Compare the similarities at the last transfer point: (B,)."""
        s, t = batch.points[-1]

        def similarities(a):
            rows = a.reshape(a.shape[0], -1)
            return maps.normalize(rows @ rows.T)  # (B, B)

        difference = similarities(batch.student.taps[s]) - similarities(batch.teacher.taps[t])
        return jnp.mean(jnp.square(difference), axis=-1)


def main(workdir: str = "runs/own_term", **changes) -> dict:
    """Train with attention transfer and the new term; ``changes`` are config keys."""
    config = config_files.load("digits", "method=at")
    config.update_from_flattened_dict(changes)
    # Weights: those of the config for library terms, the class attribute beta, or a mapping.
    terms = (AttentionTransfer(), SimilarityPreserving())
    return loop.train_and_evaluate(config, workdir, terms=terms)


if __name__ == "__main__":
    main()
