"""The command ``at-jax tables``: its flags, and what it reports of errors."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import NoReturn

from at_jax.errors import UserError

__all__ = ["main"]

_DESCRIPTION = """Compare methods over several seeds: the tables of the paper, or one of your own config.

  at-jax tables --list                          all tables, their rows, the paper's results
  at-jax tables digits                          no download, some minutes on a CPU
  at-jax tables cifar10_activation --rows 'wrn_16_1-none,wrn_16_1-wrn_16_2-*' --seeds 3
  at-jax tables cifar10_activation --data DIR --epochs 10 --together
  at-jax tables digits --search at.beta=10,100,1000 --search kd.temperature=2,4,8
  at-jax tables --config=folder:data=DIR,student=resnet_18,teacher=resnet_34 --methods none,at,kd

Run the same command with the same --out to resume. Seeds and rows can be added to a trained table.
On several machines: --shard 1/8 ... --shard 8/8 with one --out that all of them share, then --merge.
"""


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: --help prints all options")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="at-jax tables",
        allow_abbrev=False,  # --seed is not --seeds
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", nargs="?", help="name of the table")
    add("--list", action="store_true", help="print all tables and their rows, or those of NAME")
    add("--config", default="", metavar="NAME[:PARTS]",
        help="a config, as for at-jax train: a table of its student, teacher and data")  # fmt: skip
    add("--methods", default="", metavar="M1,M2,...",
        help="rows of the table of --config (default: none, and the methods of the config)")  # fmt: skip
    add("--seeds", type=int, help="number of seeds: 0, 1, ... (default 5; 1 with --search)")
    add("--epochs", type=int, default=0,
        help="epochs of a run; schedules scale in proportion (default: the table's own)")  # fmt: skip
    add("--data", default="", help="a folder {train,test}/<class>/*.jpg, or a TFDS name")
    add("--label", default="", help="name of the data set in the table and its figures")
    add(
        "--rows",
        action="append",
        default=[],
        help="labels, names or patterns of rows, such as none,at (default: all)",
    )
    add("--set", action="append", default=[], metavar="[ROWS:]KEY=VALUE", dest="changes",
        help="change a config key, in every row or in some; may be repeated")  # fmt: skip
    add("--search", action="append", default=[], metavar="[ROWS:]KEY=V1,V2,...",
        help="try values on held-out training images; may be repeated. Every method needs the same "
        "number of trials; labels only tries learning rates unless it has values")  # fmt: skip
    add("--searched", action="store_true", help="use the values that --search chose")
    add("--out", default="", help="folder of the runs and the table "
        "(default: the one in results/ that has the same settings, else runs/tables/NAME; with --search "
        "and --searched NAME_searched)")  # fmt: skip
    add("--together", type=int, nargs="?", const=4, default=1, metavar="N",
        help="train up to N (4) students of a pair in one program: those of one seed, or of several with "
        "--set data.order_seed=0")  # fmt: skip
    add("--shard", default="1/1", metavar="I/N", help="train part I of N of the runs")
    add("--merge", action="store_true", help="train nothing; make the table from the runs in --out")
    return parser


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the flags; an unknown one is named with its nearest match.

    Raises:
      UserError: for a flag that does not exist, or a value that is not valid.
    """
    parser = _parser()
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        raise UserError(f"unknown argument {unknown[0]!r}: {_suggestion(unknown[0], parser)}")
    if options.seeds is None:
        options.seeds = 1 if options.search else 5
    options.rows = ",".join(options.rows)
    return options


def _suggestion(argument: str, parser: argparse.ArgumentParser) -> str:
    from at_jax.training.config import default_values  # here, as in _run

    if not argument.startswith("-"):
        return "give one name of a table; separate rows by commas, as in --rows 'a,b'"
    name, _, value = argument.lstrip("-").removeprefix("config.").partition("=")
    keys = default_values()
    of_tables = {"epochs": "--epochs", "seed": "--seeds", "method": "--rows, or --methods"}
    if name in of_tables:
        return f"use {of_tables[name]}"
    if name in keys:
        return f"did you mean --set {name}={value or '...'}?"
    flags = {flag.lstrip("-"): flag for action in parser._actions for flag in action.option_strings}
    known = {**{key: f"--set {key}=" for key in keys}, **flags}
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {known[close[0]]}?" if close else "--help prints all options"


def main(argv: Sequence[str]) -> int:
    """Run the command line.

    Args:
      argv: arguments without the program's name.

    Returns:
      The exit code: that of :func:`at_jax.tables.execution.run`; 1 for a full disk and 2 for a UserError,
      which are printed as one line.
    """
    try:
        return _run(_parse(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    # Imported here: --help should not wait for the training code.
    from at_jax import loop
    from at_jax.tables import execution, job, registry
    from at_jax.tables import options as table_options
    from at_jax.training.components.datasets import kept_in_memory

    if options.list:
        if options.name or options.config or options.methods:
            tables = {table_options.name(options): table_options.table(options)}
        else:
            tables = {name: make() for name, make in registry.TABLES.items()}
        print(registry.listing(tables))
        return 0
    with kept_in_memory():
        planned = job.from_options(options)
        try:
            return execution.run(planned)
        except loop.StorageError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
