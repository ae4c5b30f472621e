"""Every method side by side, and the tables of docs/benchmarks.md: ``python examples/method_table.py [DATA] [FOLDER]``.

One score model is trained on the real digits (or on ``shapes``); every method of ``distill`` and ``train-ct`` then gets
the same network, the same number of images and, but for the rows that say otherwise, the same start: that score model.
Prints one-step and two-step FD-small of 2,000 samples. With $CMTOOL_TIMES=10 the runs are ten times as long, and the
table says instead whether anything ran away: the largest loss, gradient norm and EMA gap of the last half.
$CMTOOL_ONLY names rows between semicolons, $CMTOOL_IMAGES and $CMTOOL_N other lengths.
"""

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from cmtool import cli
from cmtool.options import registry

IMAGES = {"digits": 16_000, "shapes": 12_000}
TEACHER = {"digits": 120_000, "shapes": 36_000}
PRESET = {"digits": ["--preset", "digits-cpu"], "shapes": []}
NARROW = ["--set", "backbone.model_channels=16"]  # students have their teacher's network
REFERENCE = {"digits": "digits", "shapes": "shapes[:2000]"}
SAMPLES = os.environ.get("CMTOOL_N", "2000")
IMAGES_SAID = os.environ.get("CMTOOL_IMAGES")
TIMES = int(os.environ.get("CMTOOL_TIMES", "1"))
ONLY = os.environ.get("CMTOOL_ONLY", "").split(";") if os.environ.get("CMTOOL_ONLY") else []

# As OpenAI ran the two methods of 2023: l2 in place of LPIPS, which needs files, and the numbers of their scripts.
PUBLISHED = {
    "cd, as in 2023": ("distill", "cd", ["--set", "method.decay=0", "--lr", "4e-4", "--set", "lr_schedule=constant"]),
    "ct, as in 2023, from random weights": (
        "train-ct",
        "ct",
        ["--set", "method.convention=openai", "--lr", "4e-4", "--set", "lr_schedule=constant"],
    ),
}


def chosen(words: list[str]) -> list[str]:
    """Options of the method."""
    return [part for word in words for part in ("--set", f"method.{word}")]


# How close the pairs come, and how soon, is a matter of the size of the images and the length of a run.
FAR = ["P_mean=-0.4", "P_std=1.6", "k=40", "stages=4", "weight=output"]  # the defaults of distill and train-ct
NEAR = ["P_mean=-1.1", "P_std=2", "k=8", "stages=8", "weight=gap"]  # as published
SETTINGS: dict[
    str, dict[str, list[str]]
] = {  # the digits-presets are those of the first table of docs/benchmarks.md; tcm goes on with the gap of ect
    "digits": {
        "ect": ["--preset", "digits-ect"],
        "ecd": ["--preset", "digits-ecd"],
        "stable": ["--preset", "digits-cpu", *chosen(NEAR)],
        "tcm": ["--preset", "digits-cpu", *chosen(["q=8", "c=0.3"])],
    },
    "shapes": {"ect": chosen(FAR), "ecd": chosen(FAR), "stable": chosen(FAR), "tcm": chosen(["q=8"])},
}
FROM_RANDOM = ("ct", "ict", "ect", "stable", "meanflow")


def cmtool(*words: str) -> dict[str, Any]:
    """Run a command in this process, and read its JSON."""
    print("cmtool", *words, file=sys.stderr, flush=True)
    with redirect_stdout(io.StringIO()) as out:
        code = cli.run([*words, "--json", "--quiet"])
    return json.loads(out.getvalue()) if code == 0 else {"failed": code}


def kept(path: Path, *words: str) -> dict[str, Any]:
    """The result of a command; one that is there already is read again, one that failed is tried again."""
    if path.exists():
        return json.loads(path.read_text())
    result = cmtool(*words)
    if "failed" not in result:
        path.write_text(json.dumps(result))
    return result


def rows() -> dict[str, tuple[str, str, list[str], bool]]:
    """Title -> command, method, options, and whether it starts from the score model."""
    found = {}
    for command, group in (("distill", "distill"), ("train-ct", "train_ct")):
        for name in registry.names(group):
            found[name] = (command, name, [], True)
    for name in FROM_RANDOM:
        found[f"{name}, from random weights"] = ("train-ct", name, [], False)
    for title, (command, name, words) in PUBLISHED.items():
        found[title] = (command, name, words, "random" not in title)
    return found


def main() -> None:
    data = sys.argv[1] if len(sys.argv) > 1 else "digits"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else f"method-table-{data}")
    folder.mkdir(parents=True, exist_ok=True)
    length = ["--images", IMAGES_SAID or str(TEACHER[data])]
    words = [*PRESET[data], *NARROW, "--data", data, *length]
    teacher = kept(folder / "teacher.json", "train-score", *words, "--run-dir", str(folder / "teacher"))
    images = IMAGES_SAID or str(IMAGES[data] * TIMES)
    print("| method | seconds | one step | two steps |\n|---|---|---|---|")
    for title, (command, name, words, started) in rows().items():
        if ONLY and title not in ONLY:
            continue
        slug = "".join(c if c.isalnum() else "-" for c in title)
        preset = SETTINGS[data].get(name, PRESET[data])
        if not started and name in ("ect", "stable"):  # random weights have to learn denoising first
            preset = [*PRESET[data], *chosen(FAR)]
        parent = ["--teacher" if command == "distill" else "--init", teacher["checkpoint"]] if started else NARROW
        if name == "tcm":  # its second stage goes on from a consistency model
            parent = ["--init", kept(folder / "ect.json")["checkpoint"]]
        line = [command, *preset, "--data", data, "--lr", "1e-3", "--method", name, *words, *parent, "--images", images]
        run = kept(folder / f"{slug}.json", *line, "--run-dir", str(folder / slug))
        if "failed" in run:
            print(f"| {title} | | | failed with exit code {run['failed']} | |", flush=True)
            continue
        print(f"| {title} | {run['seconds']:.0f} | {' | '.join(judged(folder, slug, data, run))} |", flush=True)


def judged(folder: Path, slug: str, data: str, run: dict[str, Any]) -> list[str]:
    """FD-small in one step and two; of long runs also what happened in their last half."""
    fid = ["fid", run["checkpoint"], "--ref", REFERENCE[data], "--features", "small", "-n", SAMPLES]
    values = [kept(folder / f"{slug}-{n}.json", *fid, "--steps", str(n)).get("value", float("nan")) for n in (1, 2)]
    figures = [f"{value:.3g}" for value in values]
    if TIMES > 1:
        lines = [json.loads(line) for line in (Path(run["run"]) / "metrics.jsonl").read_text().splitlines()]
        last = lines[len(lines) // 2 :]
        figures += [f"{max(line[key] for line in last):.3g}" for key in ("loss", "gradient", "ema_gap")]
    return figures


if __name__ == "__main__":
    main()
