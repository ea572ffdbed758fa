"""What every test runs under: four virtual CPU devices, and jax as strict as it gets."""

import os

# Subprocesses of the end-to-end tests inherit it.
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
