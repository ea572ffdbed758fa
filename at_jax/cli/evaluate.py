"""``at-jax evaluate``: the test error of a run."""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from at_jax import paths
from at_jax.cli.parser import CommandParser
from at_jax.errors import UserError, replacing
from at_jax.training import metrics
from at_jax.training.components import datasets, imports
from at_jax.training.config import default_config
from at_jax.training.console import log
from at_jax.training.files import run_files

__all__ = ["main", "run"]

_EXAMPLES = """examples:
  at-jax evaluate --workdir runs/digits
  at-jax evaluate --workdir RUN --data_dir DIR --json      the images of the run have moved
"""


_OTHER_IMAGES = "the --data_dir of its images; at-jax predict classifies others"


def main(argv: Sequence[str]) -> int:
    """Run the command; a UserError is printed as one line, with exit code 2."""
    description = "Evaluate the latest and the best checkpoint of a run on its test set."
    parser = CommandParser("evaluate", description, _EXAMPLES)
    add = parser.add_argument
    add(
        "--data_dir",
        default="",
        metavar="DIR",
        help="directory of its images, as for training (default: as in the run). For other images, use "
        "at-jax predict",
    )
    options = parser.parse_args(argv)
    try:
        workdir = paths.parse(options.workdir)
        words = [("--config.data.data_dir=", "--data_dir ")]
        if options.data_dir:
            words.append(("another --workdir", _OTHER_IMAGES))
        with replacing(words):
            errors = run(workdir, options.module, data_dir=options.data_dir, quiet=options.json)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(errors))
    return 0


def run(
    workdir: pathlib.Path,
    module: str | None = None,
    *,
    data_dir: str = "",
    runtime: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> dict[str, float]:
    """Evaluate a run with the config in its workdir.

    Args:
      workdir: of the run.
      module: see :func:`at_jax.loop.evaluate`.
      data_dir: replaces that of the run; empty keeps it.
      runtime: the config section of this command; None for the defaults.
      quiet: print nothing.

    Returns:
      As :func:`at_jax.loop.evaluate`.

    Raises:
      UserError: if the workdir holds no run, or as :func:`at_jax.loop.evaluate`.
    """
    from at_jax import loop

    if not run_files.has_config(workdir):
        raise UserError(f"--workdir: {workdir} holds no run: give the directory of one")
    # Before the config, which may have sections of its terms.
    imports.packages(module)
    config = default_config()
    config.update(run_files.read_config(workdir) | {"runtime": dict(runtime or {})})
    if data_dir:
        datasets.check_moved(config.data.source, data_dir)
        config.data.data_dir = data_dir
    errors = loop.evaluate(config, workdir, module=module)
    if not quiet:
        log(
            f"{config.student} in {workdir}: test error {metrics.shown(errors)} "
            f"(best checkpoint {metrics.shown(errors, 'best_test_error')})"
        )
    return errors
