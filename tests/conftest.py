"""Environment of all tests: four virtual CPU devices, strict promotion of ranks and dtypes."""

import os

# Subprocesses of the end-to-end tests inherit both.
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of a test's time is LLVM's optimization; the program that XLA hands to it is the same.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def compiled_once(tmp_path_factory):
    """A compilation cache: whole runs share most of their programs."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("cache")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, compiled_once):
    """A run of a student whose teacher was trained first, with figures: (workdir, result, log lines)."""
    import small_run

    from at_jax import loop
    from at_jax.training import preparation, result, trainer

    workdir = tmp_path_factory.mktemp("run")
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (loop, preparation, result, trainer):
            patch.setattr(module, "log", lines.append)
        outcome = loop.train_and_evaluate(small_run.config(runtime__figures=True), workdir)
    return workdir, outcome, lines
