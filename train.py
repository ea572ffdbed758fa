"""Train a student from a teacher, as ``at-jax train`` does; `python train.py --help` prints the usage."""

import sys

from at_jax.cli import main
from at_jax.distributed import huge_pages

if __name__ == "__main__":
    huge_pages.restart()
    sys.exit(main(["train", *sys.argv[1:]]))
