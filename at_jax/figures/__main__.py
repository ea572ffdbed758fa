"""``python -m at_jax.figures``: the command ``at-jax figures``."""

import sys

from at_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(name="figures"))
