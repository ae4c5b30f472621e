"""Running what the documents show, on runs short enough for a test."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "run"]

ROOT = Path(__file__).parents[1]
SHORT = {"IMAGES": "64", "BATCH": "32", "SNAPSHOTS": "1", "N": "80", "PICTURES": "4", "THREADS": "1"}
SHORT["ONLY"] = "EDM,ect,tcm,scd"


def run(command: list[str], folder: Path, site: Path | None = None, programs: Path | None = None) -> None:
    """Run a program in a folder, with the running interpreter's programs first and every training cut short.

    ``site`` is a folder of installed packages that it finds besides, ``programs`` one of programs that come first.
    """
    path = os.pathsep.join(
        filter(None, (programs and str(programs), str(Path(sys.executable).parent), os.environ["PATH"]))
    )
    short = {f"CMTOOL_{name}": value for name, value in SHORT.items()}
    env = {**os.environ, **short, "PATH": path, "OMP_NUM_THREADS": "1"}
    if site:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}"
    assert "Traceback" not in done.stdout
