"""Train a table of the paper again.

  python -m at_jax.tables --list                          the tables, their rows, the paper's figures
  python -m at_jax.tables digits                          needs nothing, some minutes
  python -m at_jax.tables cifar10_activation --rows 'wrn_16_1-none,wrn_16_1-wrn_16_2-*' --seeds 3
  python -m at_jax.tables cifar10_activation --data DIR --epochs 10 --together

Started again with the same --out it goes on; more seeds and other rows may be added to what is there.
On many machines: --shard 1/8 ... --shard 8/8 with one --out that all of them see, then --merge.
"""

import argparse
import sys
from collections.abc import Sequence

_EXAMPLES = __doc__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m at_jax.tables",
        description=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", nargs="?", help="the table")
    add("--list", action="store_true", help="show the tables and their rows")
    add("--seeds", type=int, default=5, help="runs of each row, seeds 0, 1, ... (default 5)")
    add("--epochs", type=int, default=0, help="of a run; the schedule's drops move in proportion")
    add("--data", default="", help="a folder {train,test}/<class>/*.jpg, or the name of a TFDS set")
    add("--label", default="", help="what tables and pictures call the data")
    add("--rows", default="", help="names or patterns of rows, with commas (default: all)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
        help="change a key of configs/base.py in all rows; may be given several times")  # fmt: skip
    add("--out", default="", help="where runs and table live (default: runs/tables/NAME)")
    add("--together", type=int, nargs="?", const=4, default=1, metavar="N",
        help="train up to N (4) students of a pair and a seed in one program; seeds too where "
        "--set data.order_seed=0 gives them one order of images")  # fmt: skip
    add("--shard", default="1/1", metavar="I/N", help="do the I-th of N parts of the work")
    add("--merge", action="store_true", help="train nothing: make the table of what is in --out")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command line, without the program's name; return the exit code."""
    options = _parser().parse_args(argv)
    try:
        from configs import base  # noqa: F401
    except ModuleNotFoundError:
        print("error: there is no folder configs here: run this in the repository", file=sys.stderr)
        return 2
    from at_jax import report
    from at_jax.tables import command

    if options.list:
        print(command.listing())
        return 0
    try:
        job = command.job(options)
    except ValueError as error:
        if not report.is_ours(error):
            raise  # a fault of the program: its traceback is what helps
        print(f"error: {error}", file=sys.stderr)
        return 2
    return command.run(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
