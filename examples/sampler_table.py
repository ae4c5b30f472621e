"""Every sampler on every process, on real digits: ``python examples/sampler_table.py [FOLDER]``.

Trains one score model for each process (VE, VP, sub-VP, EDM, flow matching, TrigFlow), samples each with every solver
at about the same NFE, and one of them with more and more. Writes the table of docs/benchmarks.md
to standard output, and FOLDER/samplers.png: quality against NFE. Most of an hour on two quiet cores.
$CMTOOL_ONLY names columns of the table, $CMTOOL_IMAGES and $CMTOOL_N other lengths.
"""

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from cmtool import cli
from cmtool.files.charts import curves
from cmtool.files.picture_files import write_picture
from cmtool.options import registry

SAMPLES = os.environ.get("CMTOOL_N", "1000")
IMAGES = os.environ.get("CMTOOL_IMAGES", "120000")
ONLY = os.environ.get("CMTOOL_ONLY", "").split(",") if os.environ.get("CMTOOL_ONLY") else []
MODELS = {
    "EDM": ["--method", "edm"],
    "VP": ["--method", "dsm", "--set", "method.process=vp"],
    "VE": ["--method", "dsm", "--set", "method.process=ve", "--sigma-max", "10"],  # the largest distance of two digits
    "sub-VP": ["--method", "dsm", "--set", "method.process=subvp"],
    "flow": ["--method", "flow"],
    "Trig": ["--method", "trigflow"],
}
SAMPLERS = {  # each at an NFE of 33 to 36, except those with adaptive steps
    "`euler` = `ddim`": ["--solver", "euler", "--steps", "36"],
    "`ancestral`": ["--solver", "ancestral", "--steps", "36"],
    "`heun`": ["--solver", "heun", "--steps", "18"],
    "`heun`, churn 8": ["--solver", "heun", "--steps", "18", "--set", "solver.churn=8"],
    "`midpoint`": ["--solver", "midpoint", "--steps", "18"],
    "`rk4`": ["--solver", "rk4", "--steps", "9"],
    "`dpmpp-2s`": ["--solver", "dpmpp-2s", "--steps", "18"],
    "`dpmpp-3s`": ["--solver", "dpmpp-3s", "--steps", "12"],
    "`dpmpp-2m`": ["--solver", "dpmpp-2m", "--steps", "36"],
    "`dpmpp-3m`": ["--solver", "dpmpp-3m", "--steps", "36"],
    "`unipc`": ["--solver", "unipc", "--steps", "36"],
    "`rk45`, 1e-2": ["--solver", "rk45", "--set", "solver.rtol=1e-2", "--set", "solver.atol=1e-2"],
    "`euler-maruyama`": ["--sampler", "euler-maruyama", "--steps", "36"],
    "`reverse-diffusion`": ["--sampler", "reverse-diffusion", "--steps", "36"],
    "`sde-ancestral`": ["--sampler", "sde-ancestral", "--steps", "36"],
    "`predictor-corrector`": ["--sampler", "predictor-corrector", "--steps", "18"],
    "`langevin`, 10 noise levels": [
        *("--sampler", "langevin", "--schedule", "log", "--steps", "9", "--set", "sampler.each=10"),
        *("--set", "sampler.rate=0.2"),
    ],
}
CURVES = {  # steps whose NFE is about 5, 9, 19 and 37
    "euler": [5, 9, 19, 37],
    "ancestral": [5, 9, 19, 37],
    "heun": [3, 5, 10, 19],
    "dpmpp-2m": [5, 9, 19, 37],
    "dpmpp-3s": [2, 4, 7, 13],
    "unipc": [5, 9, 19, 37],
    "euler-maruyama": [5, 9, 19, 37],
    "predictor-corrector": [3, 5, 10, 19],
}


def cmtool(*words: str) -> dict[str, Any]:
    """Run a command in this process, and read its JSON."""
    print("cmtool", *words, file=sys.stderr)
    with redirect_stdout(io.StringIO()) as out:
        code = cli.run([*words, "--json", "--quiet"])
    if code:
        sys.exit(code)
    return json.loads(out.getvalue())


def kept(path: Path, *words: str) -> dict[str, Any]:
    """The result of a command; one that is there already is read again."""
    if not path.exists():
        path.write_text(json.dumps(cmtool(*words)))
    return json.loads(path.read_text())


def train(folder: Path, name: str) -> str:
    run = folder / name
    preset = ["--preset", "digits-cpu", "--set", "backbone.model_channels=16", "--images", IMAGES]
    return kept(folder / f"{name}.json", "train-score", *preset, *MODELS[name], "--run-dir", str(run))["checkpoint"]


def judge(folder: Path, name: str, model: str, words: list[str]) -> tuple[float, float, float]:
    """NFE, FD-small and seconds of a way of sampling."""
    slug = "".join(c for c in "-".join([name, *words]) if c.isalnum() or c in "-.")
    fid = ["fid", model, "--ref", "digits", "--features", "small", "-n", SAMPLES]
    found = kept(folder / f"{slug}.json", *fid, *words)
    return found["source"]["nfe"], found["value"], found["seconds"]


def kind(name: str) -> str:
    """The option that a way of sampling is a value of."""
    return "--sampler" if name in registry.names("samplers") else "--solver"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "sampler-table")
    folder.mkdir(parents=True, exist_ok=True)
    models = {name: train(folder, name) for name in MODELS if not ONLY or name in ONLY}

    print(f"| sampler | NFE | {' | '.join(models)} | seconds |\n|---|---|{'---|' * len(models)}---|")
    for title, words in SAMPLERS.items():
        found = [judge(folder, name, model, words) for name, model in models.items()]
        costs = sorted({round(cost) for cost, _, _ in found})
        cost = f"{costs[0]} to {costs[-1]}" if len(costs) > 1 else f"{costs[0]}"
        values = " | ".join(f"{value:.3g}" for _, value, _ in found)
        print(f"| {title} | {cost} | {values} | {sum(s for _, _, s in found) / len(found):.0f} |", flush=True)

    lines = {
        name: [judge(folder, "EDM", models["EDM"], [kind(name), name, "--steps", str(n)])[:2] for n in steps]
        for name, steps in CURVES.items()
    }
    write_picture(folder / "samplers.png", curves(lines, "NFE", "FD-small"))


if __name__ == "__main__":
    main()
