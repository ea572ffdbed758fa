"""Train a student from a teacher, as ``at-jax train`` does; `python train.py --help` prints the usage."""

import sys

from at_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(name="train"))
