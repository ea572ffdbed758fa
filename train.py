"""Train a student from a teacher. `python train.py --help` says how."""

import difflib
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator

from absl import app, flags, logging
from ml_collections import config_flags

from configs import base

HELP = """Train a student network from a teacher: attention transfer, distillation, and what goes with them.

  python train.py                                            digits, 200 labels, attention transfer
  python train.py --config=configs/cifar10.py:method=at+kd   CIFAR-10 by the paper's recipe
  python train.py --config=configs/folder.py:data=DIR        your own images
  python train.py --config.seed=1 --config.at.beta=25        any key of configs/base.py

--config=FILE:PARTS   a file of configs/, and parts joined by commas, each optional:
                        student=, teacher=  wrn_16_1, wrn_40_2, nin_thin, nin_wide, resnet_18, ...
                        method=             none, kd, at, f_actt, gradient_at, flip_symmetry, min_l2,
                                            or several: at+kd
                        data=DIR            configs/folder.py only: DIR/{train,test}/<class>/*.jpg
--config.KEY=VALUE    changes one key; configs/base.py lists all of them with their meaning
--workdir=DIR         where the run lives (default: runs/<config>); started again, it goes on
--evaluate            measure the run in --workdir on its test set
--profile             write a profiler trace of some steps to <workdir>/profile

Several machines: the same command on each, and
--coordinator=HOST:PORT   of the first, a port that is free there
--processes=N             that train together
--process=I               which this is, from 0
SLURM, Open MPI and GKE tell these themselves; --coordinator=auto asks other clusters that JAX knows.
--processes=1 trains alone whatever they tell.
"""

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "", "Where the run lives; empty: runs/<config>.")
_EVALUATE = flags.DEFINE_bool("evaluate", False, "Measure a finished run on its test set.")
_PROFILE = flags.DEFINE_bool("profile", False, "Write a profiler trace of some steps.")

_COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0; auto: ask JAX.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes train together.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")

_DEFAULT = f"--config={pathlib.Path(__file__).parent / 'configs' / 'digits.py'}"


def main(argv: list[str]) -> int:
    """Meet the other processes, where there are any, and train; jax is imported only now.

    --help must not wait for it.
    """
    from at_jax import launch, processes

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it renames
    try:
        launch.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        return _run(argv)
    except BaseException as error:
        if isinstance(error, SystemExit) or not processes.several():
            raise
        # This process alone failed, or was stopped at once: the others must not wait for it.
        if not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
        launch.leave(130 if isinstance(error, KeyboardInterrupt) else 1)


def _run(argv: list[str]) -> int:
    """Flags to config to one call of the library."""
    from at_jax import loop, processes, report

    workdir = pathlib.Path(_WORKDIR.value or default_workdir(argv))
    config = _CONFIG.value
    try:
        processes.check_same({"--evaluate": _EVALUATE.value})
        if _EVALUATE.value:
            config = _config_of_run(workdir, config, argv)
            errors = loop.evaluate(config, workdir)
            report.say(
                f"{config.student} in {workdir}: test error {errors['test_error']:.2f} % "
                f"(best checkpoint {errors['best_test_error']:.2f} %)"
            )
        else:
            loop.train_and_evaluate(config, workdir, profile=_PROFILE.value)
    except ValueError as error:
        if not report.is_ours(error, __file__):
            raise  # a fault of the program: its traceback is what helps
        print(f"error: {error}", file=sys.stderr)
        return 2
    except loop.NonFinite as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except loop.Interrupted as message:
        report.say(str(message))
        return 130
    except KeyboardInterrupt:
        print(
            f"Stopped at once. What was saved is in {workdir}: the same command goes on from there"
        )
        if processes.several():
            raise
        return 130
    return 0


def default_workdir(argv: list[str]) -> str:
    """`runs/<config>`: the config file's name and the part after the colon.

    >>> default_workdir(["--config=configs/cifar10.py:student=wrn_16_1,method=at+kd"])
    'runs/cifar10-student=wrn_16_1,method=at+kd'
    """
    file, _, parts = _config_flag(argv).partition(":")
    name = pathlib.Path(file).stem + (f"-{parts}" if parts else "")
    return "runs/" + re.sub(r"[^\w.,=+-]", "_", name)


def _config_flag(argv: list[str]) -> str:
    return next(a for a in reversed(argv) if a.startswith("--config=")).removeprefix("--config=")


def _config_of_run(workdir: pathlib.Path, config, argv: list[str]):
    """A run is evaluated by the config it was trained by, on the devices and the data of this machine."""
    from at_jax import run_directory

    if not run_directory.has_config(workdir):
        raise ValueError(f"--evaluate: {workdir} holds no run: give the --workdir of one")
    stored = run_directory.read_config(workdir, like=config.to_dict())
    del stored["runtime"]
    parts = _config_flag(argv).partition(":")[2].split(",")
    if any(a.startswith("--config.data.data_dir=") for a in argv) or any(
        part.startswith("data=") for part in parts
    ):
        stored["data"]["data_dir"] = config.data.data_dir
    config.update(stored)
    return config


def parse(argv: list[str]) -> list[str]:
    """Parse flags; bad ones are one line and exit code 2."""
    if any(re.fullmatch("--?(h|help|helpfull|helpshort)", a) for a in argv):
        print(HELP, end="")
        sys.exit(0)
    argv[:] = _with_config_first(argv)  # in place: config_flags looks into sys.argv, which this is
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise ValueError(f"unknown argument {rest[1]!r}: options begin with --, see --help")
        _ = _CONFIG.value.seed  # a config that failed to load says so only when it is read
    except Exception as error:  # every library of the flags has errors of its own
        sys.exit(_complain(error, argv))
    return argv


def _with_config_first(argv: list[str]) -> list[str]:
    """Write every --config flag as --config...=VALUE, and --config itself, or the default, first.

    The default is not the flag's own: overrides of a default file are parsed where nothing can be caught.
    """
    program, *given = argv
    config, others = _DEFAULT, []
    while given:
        flag = re.sub(r"^-(?=config\b)", "--", given.pop(0))  # absl takes one dash, too
        follows = given and not given[0].startswith("-")
        if re.fullmatch(r"--config(\.[\w.]+)?", flag) and follows:
            flag = f"{flag}={given.pop(0)}"
        if flag.startswith("--config="):
            config = flag
        else:
            others.append(flag)
    return [program, config, *others]


def _complain(error: Exception, argv: list[str]) -> int:
    """Print one line about a bad flag: what it is, what it should be, the nearest known one."""
    message = " ".join(str(error).split())
    # ml_collections hands on a whole traceback where a config file raises: keep what it raised.
    *_, message = re.split(r"Traceback \(most recent call last\).*?(?:\w+Error): ", message)
    value, _, parts = _config_flag(argv).partition(":")
    if not pathlib.Path(value).is_file():
        known = [str(path) for path in sorted(pathlib.Path(value).parent.glob("*.py"))]
        close = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "name one, such as configs/digits.py"
        message = f"--config: there is no file {value!r}; {hint}"
    elif "positional argument" in message:
        message = f"--config: {value} takes no parts after the colon, got {parts!r}: leave them out"
    elif "get_config" in message or "literal" in message or "syntax" in message:
        message = f"--config: {value} is no config ({message}): name one, such as configs/digits.py"
    elif isinstance(error, AttributeError | KeyError):
        given = [a.split("=")[0] for a in argv if a.startswith("--config.")]
        known = list(_keys(base.get_config()))
        for flag in given:
            key = flag.removeprefix("--config.")
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = (
                    f"did you mean --config.{close[0]}?" if close else "configs/base.py lists them"
                )
                message = f"{flag}: there is no such key; {hint}"
                break
    print(f"error: {message}", file=sys.stderr)
    return 2


def _keys(config, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
