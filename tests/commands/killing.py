"""Run ``cmtool sample`` again and again and kill it at random moments: a process of its own, so that forking is safe.

    python killing.py MODEL OUT N KILLS SECONDS

Every output that comes to an end is compared with one that nobody killed. Prints a line of JSON with what happened.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from cmtool.cli import run
from cmtool.commands import sample

assert sample  # imported before forking, once for all


def contents(path):
    """Every file of an output, by what follows its name."""
    found = [p for p in Path(path).parent.rglob("*") if p.is_file() and str(p).startswith(path)]
    return {str(p)[len(path) :]: p.read_bytes() for p in found}


def started(words):
    """A child that samples."""
    child = os.fork()
    if child:
        return child
    with contextlib.suppress(BaseException):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(run(words))
    os._exit(99)


def ended(child, seconds):
    """Whether the child came to its end before it was killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return not os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(model, out, n, kills, seconds):
    pick, killed, writing, compared = random.Random(0), 0, 0, 0
    words = ["sample", "-m", model, "-n", n, "--threads", "1", "--quiet", "-o"]
    suffix = Path(out).suffix
    whole = os.path.join(os.path.dirname(out), f"whole{suffix}")
    began = time.monotonic()
    assert ended(started([*words, whole]), 600)
    usual = float(seconds) or time.monotonic() - began
    expected = contents(whole)
    while killed < int(kills) or not compared:
        last = killed >= int(kills)
        if not ended(started([*words, out]), 600 if last else pick.uniform(0, usual)):
            killed += 1
            writing += any(".part" in name for name in contents(out))
            continue
        found = contents(out)
        wrong = [name for name in found.keys() | expected if found.get(name) != expected.get(name)]
        assert not wrong, sorted(wrong)[:10]
        compared += 1
        for path in Path(out).parent.glob(f"{Path(out).name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(json.dumps({"kills": killed, "while_writing": writing, "compared": compared}))


if __name__ == "__main__":
    main(*sys.argv[1:])
