"""Train a student from a teacher. `python train.py --help` prints the usage."""

import difflib
import pathlib
import re
import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from at_jax.distributed import huge_pages

HELP = """Train a student network from a teacher: attention transfer, distillation and related methods.

  python train.py                                            digits, 200 labels, attention transfer
  python train.py --config=configs/cifar10.py:method=at+kd   CIFAR-10 with the paper's recipe
  python train.py --config=configs/folder.py:data=DIR        your own images
  python train.py --config.seed=1 --config.at.beta=25        any key

--config=FILE:PARTS   a file of configs/, and parts joined by commas, each optional:
                        student=, teacher=  wrn_16_1, wrn_40_2, nin_thin, resnet_18, mobilenet_v2_0.5, ...
                        method=             none, or terms joined by + as in at+kd: kd, at, f_actt,
                                            gradient_at, flip_symmetry, min_l2, jacobian, sobolev,
                                            map_gradient
                        data=DIR            configs/folder.py only: DIR/{train,test}/<class>/*.jpg
--config.KEY=VALUE    set one key
--help-config         print every key with its type, default, rule and meaning
--workdir=DIR         directory of the run, or gs://... (default: runs/<config>); run again to resume
--evaluate            evaluate the run in --workdir on its test set
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
_PROFILE = flags.DEFINE_bool("profile", False, "Write a profiler trace of some steps.")

_COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0; auto: ask JAX.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes.")
_PROCESS = flags.DEFINE_integer("process", None, "Index of this process, from 0.")

_DEFAULT = f"--config={pathlib.Path(__file__).parent / 'configs' / 'digits.py'}"


def main(argv: list[str]) -> int:
    """Join the other processes, if any, and train."""
    # JAX is imported here: --help must not wait for it.
    from at_jax.distributed import launch, processes
    from at_jax.errors import UserError

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax logs every file that it renames
    try:
        launch.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        return _run(argv)
    except BaseException as error:
        if isinstance(error, SystemExit) or not processes.is_multiprocess():
            raise
        # This process failed alone, or was stopped at once: the others must not wait for it.
        if not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
        launch.leave(130 if isinstance(error, KeyboardInterrupt) else 1)


def _run(argv: list[str]) -> int:
    """From flags to one call of the library; return the exit code."""
    from at_jax import loop, paths
    from at_jax.distributed import processes
    from at_jax.errors import UserError
    from at_jax.training.console import log

    config, module = _CONFIG.value, _MODULE.value or None
    workdir = _WORKDIR.value or default_workdir(argv)
    try:
        processes.check_same({"--evaluate": _EVALUATE.value})
        if _EVALUATE.value:
            config = _config_of_run(paths.parse(workdir), config, argv)
            errors = loop.evaluate(config, workdir, module=module)
            log(
                f"{config.student} in {workdir}: test error {errors['test_error']:.2f} % "
                f"(best checkpoint {errors['best_test_error']:.2f} %)"
            )
        else:
            loop.train_and_evaluate(config, workdir, module=module, profile=_PROFILE.value)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except loop.NonFinite as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except loop.Interrupted as message:
        log(str(message))
        return 130
    except KeyboardInterrupt:
        print(f"Stopped at once. Checkpoints are in {workdir}: run the same command to resume")
        if processes.is_multiprocess():
            raise
        return 130
    return 0


def default_workdir(argv: list[str]) -> str:
    """Workdir ``runs/<config>``: the name of the config file and the part after the colon.

    >>> default_workdir(["--config=configs/cifar10.py:student=wrn_16_1,method=at+kd"])
    'runs/cifar10-student=wrn_16_1,method=at+kd'
    """
    file, _, parts = _config_flag(argv).partition(":")
    name = pathlib.Path(file).stem + (f"-{parts}" if parts else "")
    return "runs/" + re.sub(r"[^\w.,=+-]", "_", name)


def _config_flag(argv: list[str]) -> str:
    return next(a for a in reversed(argv) if a.startswith("--config=")).removeprefix("--config=")


def _config_of_run(workdir: pathlib.Path, config, argv: list[str]):
    """Config of a run, with the runtime section and the data directory of this command."""
    from at_jax.errors import UserError
    from at_jax.training import run_files

    if not run_files.has_config(workdir):
        raise UserError(f"--evaluate: {workdir} holds no run: give the --workdir of one")
    stored = run_files.read_config(workdir)
    del stored["runtime"]
    parts = _config_flag(argv).partition(":")[2].split(",")
    if any(a.startswith("--config.data.data_dir=") for a in argv) or any(
        part.startswith("data=") for part in parts
    ):
        stored["data"]["data_dir"] = config.data.data_dir
    config.update(stored)
    return config


def parse(argv: list[str]) -> list[str]:
    """Parse the flags; an error is printed as one line, with exit code 2."""
    if any(re.fullmatch("--?(h|help|helpfull|helpshort)", a) for a in argv):
        print(HELP, end="")
        sys.exit(0)
    if any(re.fullmatch("--?help[-_]config", a) for a in argv):
        from at_jax.training.config import help_text

        print(help_text(), end="")
        sys.exit(0)
    argv[:] = _with_config_first(argv)  # in place: config_flags reads sys.argv, which this is
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise ValueError(f"unknown argument {rest[1]!r}: options begin with --, see --help")
        _ = _CONFIG.value.seed  # a config that failed to load raises only when it is read
    except Exception as error:  # every library behind the flags has errors of its own
        sys.exit(_complain(error, argv))
    return argv


def _with_config_first(argv: list[str]) -> list[str]:
    """Write every --config flag as --config...=VALUE, and --config itself, or its default, first.

    The flag has no default of its own: overrides of a default file are parsed where errors escape.
    """
    program, *given = argv
    config, others = _DEFAULT, []
    while given:
        flag = re.sub(r"^-(?=config\b)", "--", given.pop(0))  # absl accepts one dash, too
        has_value = given and not given[0].startswith("-")
        if re.fullmatch(r"--config(\.[\w.]+)?", flag) and has_value:
            flag = f"{flag}={given.pop(0)}"
        if flag.startswith("--config="):
            config = flag
        else:
            others.append(flag)
    return [program, config, *others]


def _complain(error: Exception, argv: list[str]) -> int:
    """Print one line about a bad flag: the flag, what is expected, and the nearest known name."""
    message = " ".join(str(error).split())
    # ml_collections passes on a whole traceback where a config file raises: keep the last message.
    *_, message = re.split(r"Traceback \(most recent call last\).*?(?:\w+Error): ", message)
    value, _, parts = _config_flag(argv).partition(":")
    if not pathlib.Path(value).is_file():
        known = [str(path) for path in sorted(pathlib.Path(value).parent.glob("*.py"))]
        close = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "use a file such as configs/digits.py"
        message = f"--config: there is no file {value!r}; {hint}"
    elif message.startswith("flag --config."):
        pass  # a value of the wrong type: the message names key and value
    elif "positional argument" in message:
        message = f"--config: {value} takes no parts after the colon, got {parts!r}: leave them out"
    elif "get_config" in message or "literal" in message or "syntax" in message:
        message = (
            f"--config: {value} is no config ({message}): use a file such as configs/digits.py"
        )
    elif isinstance(error, flags.UnrecognizedFlagError):
        message = _unknown_flag(error.flagname)
    elif isinstance(error, AttributeError | KeyError):
        message = _unknown_key(argv) or message
    print(f"error: {message}", file=sys.stderr)
    return 2


def _unknown_key(argv: list[str]) -> str:
    """Message about the first --config.KEY that does not exist; empty if all do."""
    known = _known_keys()
    for flag in (a.split("=")[0] for a in argv if a.startswith("--config.")):
        key = flag.removeprefix("--config.")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean --config.{close[0]}?" if close else "--help-config lists them"
            return f"{flag}: there is no such key; {hint}"
    return ""


def _unknown_flag(name: str) -> str:
    """Message about an unknown flag, which may be a key of the config, or its last part."""
    known = _known_keys()
    keys = [key for key in known if name in (key, key.split(".")[-1])]
    options = [flag for flag in flags.FLAGS if f"--{flag}" in HELP]
    close = [f"config.{key}" for key in keys] or [
        *difflib.get_close_matches(name, options, n=1),
        *(f"config.{key}" for key in difflib.get_close_matches(name, known, n=1)),
    ]
    hint = f"did you mean --{close[0]}?" if close else "see --help"
    return f"unknown flag --{name}: {hint}"


def _known_keys() -> list[str]:
    from at_jax.training.config import default_config, flatten

    return list(flatten(default_config().to_dict()))


if __name__ == "__main__":
    huge_pages.restart()
    app.run(main, flags_parser=parse)
