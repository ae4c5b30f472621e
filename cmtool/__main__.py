"""``python -m cmtool``, and what the console script calls."""

import os
import sys


def main() -> None:
    # Threads that spin at a barrier make two cores slower than one on a busy machine. This is read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cmtool.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
