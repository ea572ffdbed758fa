"""What every test runs under: four virtual CPU devices, and jax as strict as it gets."""

import os

# Subprocesses of the end-to-end tests inherit it.
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def compiled_once(tmp_path_factory):
    """Whole runs share most of their programs: compile each once in a session."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("cache")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, compiled_once):
    """A run of the student, its teacher trained first, both drawn: (workdir, result, what was said)."""
    import small_run

    from at_jax import loop, outcome, trainer

    workdir = tmp_path_factory.mktemp("run")
    said = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (loop, outcome, trainer):
            patch.setattr(module, "say", said.append)
        result = loop.train_and_evaluate(small_run.config(runtime__figures=True), workdir)
    return workdir, result, said
