"""What the bundled models are worth: ``python examples/bundled_models.py [FOLDER]``.

FD-small of real shapes to real ones, of the score model, and of the consistency model in one step and two; and how many
of the samples of each are recognised as their class by a logistic regression on the embedded features of real shapes.
$CMTOOL_N is the number of samples, 10,000 without it.
"""

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cmtool import cli
from cmtool.bundled import bundled
from cmtool.datasets.shapes import shapes
from cmtool.features.small import small

N = int(os.environ.get("CMTOOL_N", "10000"))
WAYS = {  # the title, the model, and how it is sampled
    "score model, `dpmpp-2m`, 18 steps": ("score", ["--solver", "dpmpp-2m", "--steps", "18"]),
    "consistency model, one step": ("consistency", ["--steps", "1"]),
    "consistency model, two steps": ("consistency", ["--steps", "2"]),
}


def cmtool(*words: str) -> dict[str, Any]:
    """Run a command in this process, and read its JSON."""
    with redirect_stdout(io.StringIO()) as out:
        code = cli.run([*words, "--json", "--quiet"])
    if code:
        sys.exit(code)
    return json.loads(out.getvalue())


def features_of(images: torch.Tensor) -> np.ndarray:
    """The embedded features of uint8 images [N, 3, H, W]."""
    measure = small()
    return np.concatenate([np.asarray(measure(part)) for part in images.split(500)])


def classifier() -> tuple[Pipeline, float]:
    """A logistic regression on real shapes, and its accuracy on other real ones."""
    data = shapes(seed=1)
    taught, asked = (data.batch(range(start, start + 4 * N // 5)) for start in (0, 4 * N // 5))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features_of(taught[0]), taught[1])
    return model, float(model.score(features_of(asked[0]), asked[1]))


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "bundled-models")
    folder.mkdir(parents=True, exist_ok=True)
    judge, accuracy = classifier()
    halves = cmtool("fid", f"shapes[:{N}]", "--ref", f"shapes[{N}:{2 * N}]", "--features", "small")["value"]
    print("| what | recognised | FD-small | images/s |\n|---|---|---|---|")
    print(f"| real shapes, and others | {accuracy:.2%} | {halves:.3f} | |", flush=True)
    for title, (kind, words) in WAYS.items():
        path = folder / f"{title.replace(' ', '-').replace('`', '')}.npz"
        drawn = cmtool("sample", "-m", str(bundled(kind)), "-n", str(N), "-o", str(path), *words)
        distance = cmtool("fid", str(path), "--ref", f"shapes[:{N}]", "--features", "small")["value"]
        stored = np.load(path)
        images, labels = torch.from_numpy(stored["arr_0"][:2000]).permute(0, 3, 1, 2), stored["arr_1"][:2000]
        found = judge.score(features_of(images), labels)
        print(f"| {title} | {found:.2%} | {distance:.3f} | {drawn['images_per_second']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
