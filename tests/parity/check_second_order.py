"""Check gradients of terms on J in float64. test_second_order.py runs it with JAX_ENABLE_X64=1."""

import warnings

import jax
import numpy as np

# Not strict dtype promotion: Flax's BatchNorm promotes its float64 with a float32.
jax.config.update("jax_numpy_rank_promotion", "raise")

import tiny
from parity import second_order

# jax warns if it computes the second derivative of a max pool in reduced precision.
warnings.simplefilter("error")
# Float64 convolutions are plain loops on CPU: optimizing them saves more time than it costs.
tiny.QUICK["xla_backend_optimization_level"] = 1
FROM_TORCH, FROM_DIFFERENCE = 1e-10, 1e-6


def main():
    assert jax.config.jax_enable_x64, "run with JAX_ENABLE_X64=1"
    wrong = []
    for network in second_order.NETWORKS:
        study = second_order.load(network, np.float64)
        for name in second_order.CASES:
            errors = study.deviations(name)
            difference = study.from_central_difference(name)
            print(
                f"{network} {name:21} {max(errors.values()):.1e} from torch, "
                f"{difference:.1e} from the central difference"
            )
            # `not <=` instead of `>`: NaN is a failure too.
            leaves = [f"{leaf} by {e:.1e}" for leaf, e in errors.items() if not e <= FROM_TORCH]
            if leaves or not difference <= FROM_DIFFERENCE:
                wrong.append(f"{network} {name}: {difference:.1e}; {', '.join(leaves)}")
    assert not wrong, "\n".join(wrong)


if __name__ == "__main__":
    main()
