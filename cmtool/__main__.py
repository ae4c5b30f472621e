"""``python -m cmtool``, and what the console script calls."""

import os
import sys

from cmtool.startup import end_process, start_process


def main() -> None:
    start_process()
    # Threads that spin at a barrier make two cores slower than one on a busy machine. This is read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cmtool.cli import run

    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # another one, while the first was being reported
        code = 130
    end_process(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
