"""The whole chain on real images, and the table of docs/benchmarks.md: ``python examples/digits_table.py [FOLDER]``.

Trains a score model on the 1,797 handwritten digits, distils it, trains a consistency model without it, and measures
FD-small of each against the real digits. About a quarter of an hour on two quiet cores.
"""

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from cmtool import cli

FID = ["fid", "--features", "small"]
SAMPLES = os.environ.get("CMTOOL_N", "2000")


def cmtool(*words: str) -> dict[str, Any]:
    """Run a command in this process, and read its JSON."""
    print("cmtool", *words, file=sys.stderr)
    with redirect_stdout(io.StringIO()) as out:
        code = cli.run([*words, "--json", "--quiet"])
    if code:
        sys.exit(code)
    return json.loads(out.getvalue())


def train(folder: Path, name: str, *words: str) -> tuple[str, dict[str, Any]]:
    """A run of ``words``, and its checkpoint; one that is there already is not repeated."""
    run, kept = folder / name, folder / f"{name}.json"
    if not kept.exists():
        kept.write_text(json.dumps(cmtool(*words, "--run-dir", str(run))))
    result = json.loads(kept.read_text())
    return result["checkpoint"], result


def distance(model: str, steps: int) -> float:
    """FD-small of that many samples to all the digits."""
    return cmtool(*FID, model, "--ref", "digits", "--steps", str(steps), "-n", SAMPLES)["value"]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "digits-table")
    folder.mkdir(parents=True, exist_ok=True)
    teacher, learning = train(folder, "teacher", "train-score", "--preset", "digits-cpu")
    words = ["--teacher", teacher, "--method", "cd"]
    student, distilling = train(folder, "student", "distill", "--preset", "digits-cpu", *words)
    easy, closing = train(folder, "easy", "distill", "--preset", "digits-ecd", "--teacher", teacher)
    tuned, tuning = train(folder, "tuned", "train-ct", "--preset", "digits-ect", "--init", teacher)
    alone, starting = train(folder, "alone", "train-ct", "--preset", "digits-ect")
    blank, _ = train(folder, "blank", "train-ct", "--data", "digits", "--images", "1", "--batch", "1", "--lr", "1e-9")

    real = cmtool(*FID, "digits[0::2]", "--ref", "digits[1::2]")["value"]
    rows = [
        ("real digits, even against odd", "", "", "", real),
        ("teacher, `train-score`, 18 Heun steps", learning["images"], learning["seconds"], 35, distance(teacher, 18)),
    ]
    trained = (
        ("`distill --method cd`", student, distilling),
        ("`distill --method ecd`", easy, closing),
        ("`train-ct --method ect --init` teacher", tuned, tuning),
        ("`train-ct --method ect` from random weights", alone, starting),
    )
    for name, model, run in trained:
        for steps in (1, 2):
            rows.append((f"{name}, {steps}-step", run["images"], run["seconds"], steps, distance(model, steps)))
    rows.append(("untrained network", 1, "", 1, distance(blank, 1)))

    print("| model | images seen | seconds | NFE | FD-small |\n|---|---|---|---|---|")
    for name, images, seconds, nfe, value in rows:
        seen = f"{images:,}" if images else ""
        spent = f"{seconds:.0f}" if seconds else ""
        print(f"| {name} | {seen} | {spent} | {nfe} | {value:.4g} |")


if __name__ == "__main__":
    main()
