"""Compiler options of the programs of a run."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["CompiledWithOptions", "quick_options", "step_options"]

# Options of XLA for CPU; those that the installed jaxlib does not know are left out.
_STEP_ON_CPU: dict[str, bool | int] = {
    # The scheduler that runs independent operations at once may keep more arrays alive, and the library's
    # steps are no faster with it (results/cpu_steps.md).
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
}
_QUICK_ON_CPU: dict[str, bool | int] = {
    # LLVM optimizes the random numbers of an initialization for longer than a step takes to compile: 10 s
    # instead of 2 for a WRN-10-1 on two cores (jax 0.12). At level 1 the results are the same bit for bit,
    # at level 0 they are not.
    "xla_backend_optimization_level": 1,
}


def quick_options() -> dict[str, bool | int]:
    """Compiler options for a program that runs once, such as the initialization of a network."""
    return _known(_QUICK_ON_CPU) if jax.default_backend() == "cpu" else {}


def step_options(platform: str) -> dict[str, bool | int]:
    """Compiler options for a program that runs many times.

    Args:
      platform: of its devices: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    return _known(_STEP_ON_CPU) if platform == "cpu" else {}


def _known(options: Mapping[str, bool | int]) -> dict[str, bool | int]:
    return {name: value for name, value in options.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: bool | int) -> bool:
    """Whether the installed jaxlib accepts an option of the compiler."""
    nothing = jax.ShapeDtypeStruct((), jnp.float32)
    lowered = jax.jit(lambda x: x).lower(nothing)
    try:
        lowered.compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True


class CompiledWithOptions:
    """A mapped function that is compiled with options, once for each combination of argument shapes.

    ``jax.pmap`` takes no compiler options; its lowered program does.

    Args:
      mapped: the result of ``jax.pmap``.
      options: of the compiler.
    """

    def __init__(self, mapped: Any, options: Mapping[str, bool | int]):
        self._mapped, self._options = mapped, dict(options)
        self._programs: dict[Any, Callable[..., Any]] = {}

    def lower(self, *arguments: Any) -> Any:
        """Lower for the shapes of the arguments; ``compile()`` of the result needs the options."""
        return self._mapped.lower(*arguments)

    def compile(self, *arguments: Any) -> Any:
        """Compile for the shapes of the arguments."""
        return self.lower(*arguments).compile(compiler_options=self._options)

    def __call__(self, *arguments: Any) -> Any:
        """Run the program for the shapes of the arguments; the first call of each compiles."""
        leaves, structure = jax.tree.flatten(arguments)
        # Part of another program, which has its own options; or nothing is compiled, to debug.
        is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        if is_traced or jax.config.jax_disable_jit:
            return self._mapped(*arguments)
        kinds = ((np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in leaves)
        key = structure, tuple(kinds)
        if key not in self._programs:
            self._programs[key] = self.compile(*arguments)
        return self._programs[key](*arguments)
