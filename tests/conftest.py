"""Environment of all tests: four virtual CPU devices, strict promotion of ranks and dtypes."""

import json
import os
import shutil
import signal

# Subprocesses of the tests inherit all of these.
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of a test's time is LLVM's optimization; the program that XLA hands to it is the same.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Tests share a compilation cache. An entry may be half written, by another process or by one that was
# killed: JAX warns and compiles. pyproject.toml ignores the warning in this process.
os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache entry"

# A shell that starts pytest in the background ignores these, and so would the programs that tests start.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

import filelock
import jax
import pytest

# Programs of slow tests: one imports a package that may be missing, the other is for commands.held.
collect_ignore = ["storage_emulator.py", "held"]

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory):
    """One folder for all workers of pytest-xdist, whose own folders are in it."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def compiled(pytestconfig):
    """Folder of compiled programs, kept between sessions like pytest's own cache."""
    return pytestconfig.cache.mkdir("compiled")


@pytest.fixture(scope="session")
def compiled_once(compiled):
    """A compilation cache: whole runs share most of their programs."""
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def finished(session_folder, compiled_once):
    """A run of a student whose teacher was trained first, with figures: (workdir, result, log lines).

    The first worker that needs it trains. No test trains in it: another worker's would find it locked.
    """
    workdir, log = session_folder / "finished", session_folder / "finished.json"
    with filelock.FileLock(session_folder / "finished.lock"):
        if not log.exists():
            log.write_text(json.dumps(_train(workdir)))
    return workdir, *json.loads(log.read_text())


@pytest.fixture
def finished_copy(finished, tmp_path):
    """A copy of the finished run, to train in."""
    return shutil.copytree(finished[0], tmp_path / "finished")


@pytest.fixture
def in_memory(monkeypatch):
    """gs:// and s3:// in memory, whether or not gcsfs and s3fs are installed."""
    from etils.epath import backend
    from fsspec.registry import _registry
    from storage import InMemory

    from at_jax import paths

    monkeypatch.setattr(paths, "_is_installed", lambda package: True)
    for name in InMemory.protocol:
        monkeypatch.setitem(_registry, name, InMemory)
    InMemory.store.clear()
    InMemory.pseudo_dirs[:] = [""]
    cached = backend.fsspec_backend._get_filesystem
    cached.cache_clear()
    yield InMemory
    cached.cache_clear()


def _train(workdir):
    import small_run

    from at_jax import loop
    from at_jax.training import description, preparation, result, trainer

    lines = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (loop, description, preparation, result, trainer):
            patch.setattr(module, "log", lines.append)
        return loop.train_and_evaluate(small_run.config(runtime__figures=True), workdir), lines
