"""``python -m at_jax``: the command ``at-jax``."""

import sys

from at_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
