"""``at-jax train``: from flags to one call of the library."""

import pathlib
import re
import sys
import traceback
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from at_jax.cli import config_flag, early_lock

__all__ = ["HELP", "default_workdir", "main", "parse"]

HELP = """Train a student network from a teacher: attention transfer, distillation and related methods.

  at-jax train                                         digits, 200 labels, compared with labels only
  at-jax train --config=cifar10:method=at+kd           CIFAR-10 with the paper's recipe
  at-jax train --config=folder:data=DIR                your own images
  at-jax train --config.seed=1 --config.at.beta=25     any key

--config=NAME:PARTS   a config of the library or a file; parts, joined by commas, are optional:
                        student=, teacher=  wrn_16_1, wrn_40_2, nin_thin, resnet_18, mobilenet_v2_0.5, ...
                        method=             none, or terms joined by + as in at+kd: kd, at, f_actt,
                                            gradient_at, flip_symmetry, min_l2, jacobian, sobolev,
                                            map_gradient
                        data=DIR            folder, scenes: DIR/{train,test}/<class>/*.jpg
                        init=FILE           cub, scenes: ImageNet weights of the student
                        weights=FILE        imagenet: weights of the teacher
--config.KEY=VALUE    set one key
--help-config         print every key with its type, default, rule and meaning
--workdir=DIR         directory of the run, or gs://... (default: runs/<config>); run again to resume
--evaluate            evaluate the run in --workdir on its test set, as at-jax evaluate does
--module=PACKAGE:NAME a user-defined module, for a run (or a teacher.checkpoint) that trained it;
                      several, separated by commas, if the run and its teacher each have one
--profile             write a profiler trace of some steps to <workdir>/profile

Several machines: run the same command on each, with
--coordinator=HOST:PORT   address of process 0, with a free port
--processes=N             number of processes
--process=I               index of this process, from 0
SLURM, Open MPI and GKE set these themselves; --coordinator=auto asks other clusters that JAX knows.
--processes=1 disables multi-process training.
"""

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "", "Directory of the run; empty: runs/<config>.")
_EVALUATE = flags.DEFINE_bool("evaluate", False, "Evaluate a finished run on its test set.")
_MODULE = flags.DEFINE_string("module", "", "PACKAGE:NAME of the user-defined module of a run.")
_PROFILE = flags.DEFINE_bool("profile", False, "Write a profiler trace of a few steps.")

_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "HOST:PORT of process 0; auto: detected by JAX."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes.")
_PROCESS = flags.DEFINE_integer("process", None, "Index of this process, from 0.")


def main(argv: Sequence[str]) -> int:
    """Run the command; ends the process.

    Args:
      argv: arguments after ``train``.
    """
    # config_flags reads the overrides of the config from sys.argv.
    sys.argv[:] = ["at-jax train", *argv]
    with early_lock.held(sys.argv, default_workdir):
        app.run(_main, argv=sys.argv, flags_parser=parse)
    raise AssertionError("app.run ends the process")


def _main(argv: list[str]) -> int:
    """Join the other processes, if any, and train."""
    # JAX is imported here: --help must not wait for it.
    import jax

    from at_jax import signals
    from at_jax.distributed import launch, peers, processes
    from at_jax.errors import UserError

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax logs every file that it renames
    try:
        launch.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    signals.rearm()  # jax.distributed handles SIGTERM itself
    try:
        return _run(argv)
    except Exception as error:
        if not processes.is_multiprocess():
            raise
        # This process failed alone, or after another one: they must not wait for each other.
        if isinstance(error, jax.errors.JaxRuntimeError):
            peers.settle()
        if line := processes.failure_line(error):
            print(f"error: {line}: {signals.command()}", file=sys.stderr)
        else:
            traceback.print_exc()
        launch.leave(1)


def _run(argv: list[str]) -> int:
    """From flags to one call of the library; return the exit code."""
    from at_jax import loop, paths, signals
    from at_jax.cli import evaluate
    from at_jax.distributed import processes
    from at_jax.errors import UserError
    from at_jax.training.console import log

    workdir = _WORKDIR.value or default_workdir(argv)
    config, module = _CONFIG.value, _MODULE.value or None
    try:
        processes.check_same({"--evaluate": _EVALUATE.value})
        if _EVALUATE.value:
            data_dir = config.data.data_dir if _names_data(argv) else ""
            evaluate.run(
                paths.parse(workdir), module, data_dir=data_dir, runtime=config.runtime.to_dict()
            )
        else:
            loop.train_and_evaluate(config, workdir, module=module, profile=_PROFILE.value)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (loop.NonFinite, loop.StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except loop.Interrupted as stopped:
        log(f"{stopped}: {signals.command()}")
        return stopped.exit_code
    return 0


def _names_data(argv: list[str]) -> bool:
    """Whether the command line says where the images are."""
    parts = config_flag.value_of(argv).partition(":")[2].split(",")
    return any(a.startswith("--config.data.data_dir=") for a in argv) or any(
        part.startswith("data=") for part in parts
    )


def default_workdir(argv: list[str]) -> str:
    """Workdir ``runs/<config>``: the name of the config file and the part after the colon.

    >>> default_workdir(["--config=configs/cifar10.py:student=wrn_16_1,method=at+kd"])
    'runs/cifar10-student=wrn_16_1,method=at+kd'
    """
    file, _, parts = config_flag.value_of(argv).partition(":")
    name = pathlib.Path(file).stem + (f"-{parts}" if parts else "")
    return "runs/" + re.sub(r"[^\w.,=+-]", "_", name)


def parse(argv: list[str]) -> list[str]:
    """Parse the flags; an error is printed as one line, with exit code 2."""
    if any(re.fullmatch("--?(h|help|helpfull|helpshort)", a) for a in argv):
        print(HELP, end="")
        sys.exit(0)
    if any(re.fullmatch("--?help[-_]config", a) for a in argv):
        from at_jax.training.config import help_text

        print(help_text(), end="")
        sys.exit(0)
    try:
        argv[:] = config_flag.with_config_first(argv)  # in place: config_flags reads sys.argv
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise ValueError(f"unknown argument {rest[1]!r}: options begin with --, see --help")
        _ = _CONFIG.value.seed  # a config that failed to load raises only when it is read
    except Exception as error:  # every library behind the flags has errors of its own
        print(f"error: {config_flag.explain(error, argv, HELP)}", file=sys.stderr)
        sys.exit(2)
    return argv
