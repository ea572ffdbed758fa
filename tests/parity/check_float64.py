"""Check all parity cases of the losses in float64 to 1e-10: run by test_parity.py with JAX_ENABLE_X64=1."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

import numpy as np
from parity import cases

TOLERANCE = 1e-10


def main():
    assert jax.config.jax_enable_x64, "run with JAX_ENABLE_X64=1"
    errors = {
        f"{case.name}: {what}": error
        for case in cases.load()
        for what, error in case.deviations(np.float64).items()
    }
    # `not <=` instead of `>`: NaN is a failure too.
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    assert not wrong, "\n".join(f"{name} is off by {error:.1e}" for name, error in wrong.items())
    print(f"{len(errors)} comparisons, largest deviation {max(errors.values()):.1e}")


if __name__ == "__main__":
    main()
