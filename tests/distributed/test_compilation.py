"""Compiler options of a step, and the restart of a command line with huge pages."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from at_jax.distributed import compilation, devices, huge_pages

ROOT = pathlib.Path(__file__).parents[2]


def test_options_that_jaxlib_does_not_know_are_left_out(monkeypatch):
    known = {"xla_backend_optimization_level": 1}
    monkeypatch.setattr(compilation, "_STEP_ON_CPU", {**known, "xla_cpu_no_such_option": True})
    assert compilation.step_options("cpu") == known
    assert compilation.step_options("gpu") == {}


def test_the_scheduler_that_keeps_arrays_alive_is_off():
    name = "xla_cpu_enable_concurrency_optimized_scheduler"
    assert compilation.step_options("cpu") == {name: False}


def test_a_mapped_function_compiles_once_for_each_shape_with_the_options(monkeypatch):
    given = []

    class Lowered:
        def compile(self, compiler_options):
            given.append(compiler_options)
            return lambda *arguments: len(given)

    class Mapped:
        def lower(self, *arguments):
            return Lowered()

    program = compilation.CompiledWithOptions(Mapped(), {"an_option": 1})
    assert [program(jnp.zeros(2)), program(jnp.ones(2))] == [1, 1]
    assert program({"a": jnp.zeros(2)}) == 2 and program(jnp.zeros(2, jnp.int32)) == 3
    assert given == [{"an_option": 1}] * 3


def test_a_mapped_step_can_be_traced_as_part_of_another_program():
    def step(*arguments):
        return jax.lax.psum(arguments[-1], "batch")

    images = jnp.zeros((4, 1))
    mapped = devices.map_train(step, jax.devices())
    assert isinstance(mapped, compilation.CompiledWithOptions)
    assert "psum" in str(jax.make_jaxpr(mapped)(jnp.zeros(1), None, None, images))
    evaluated = devices.map_eval(step, jax.devices())
    assert "psum" in str(jax.make_jaxpr(evaluated)(jnp.zeros(1), None, images))


SCRIPT = """
import sys
from at_jax.distributed import huge_pages
huge_pages.restart()
import os
print(os.environ.get("GLIBC_TUNABLES"), huge_pages.was_restarted(), "jax" in sys.modules, sys.argv[1:])
"""


def run(tmp_path, *arguments, **environment):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    base = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES", "AT_JAX_RESTARTED")}
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**base, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(not huge_pages._available(), reason="huge pages are not available")
def test_a_command_line_restarts_once_with_its_arguments_before_jax_is_imported(tmp_path):
    found = run(tmp_path, "--config=a b", "--config.seed=1")
    assert found == "glibc.malloc.hugetlb=1 True False ['--config=a b', '--config.seed=1']"


@pytest.mark.parametrize(
    ("arguments", "environment", "tunables"),
    [
        (["--config.runtime.huge_pages=False"], {}, "None"),
        (["--config.runtime.huge_pages", "false"], {}, "None"),
        (["--set", "runtime.huge_pages=0"], {}, "None"),
        (["--config.runtime.huge_pages=f"], {}, "None"),
        (["--noconfig.runtime.huge_pages"], {}, "None"),
        ([], {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}, "glibc.malloc.perturb=0"),
        ([], {"JAX_PLATFORMS": "cuda"}, "None"),
    ],
)
def test_a_command_line_does_not_restart_where_it_should_not(
    tmp_path, arguments, environment, tunables
):
    assert run(tmp_path, *arguments, **environment).startswith(f"{tunables} False False")
