"""Editing by consistency models and by score models: ``python examples/editing_table.py [FOLDER [STUDENT TEACHER]]``.

Takes held-out ``shapes`` apart (their colours, a hole of a quarter, three quarters of their sharpness) and has them put
together again by a consistency model and by the score model that it started from, the bundled ones unless others are
named. Writes the table of docs/editing.md to standard output, PSNR and SSIM against the truth, and
FOLDER/editing.png. $CMTOOL_PICTURES says how many, 200.
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
from PIL import Image

from cmtool import cli
from cmtool.bundled import bundled
from cmtool.core.editing.masks import box
from cmtool.core.pixels import to_model, to_pixels
from cmtool.files.header import read_header
from cmtool.files.images import open_writer
from cmtool.files.picture_files import Cell, labelled_sheet, write_picture
from cmtool.options import registry

N = int(os.environ.get("CMTOOL_PICTURES", "200"))
SHOWN = 3  # pictures of each task on the sheet
WAYS = {  # the model and the options of a row
    "consistency model, 1 step": ("student", ["--steps", "1"]),
    "consistency model, 4 steps": ("student", ["--steps", "4"]),
    "consistency model, 16 steps": ("student", []),
    "score model, ODE with projections": ("teacher", ["--solver", "heun", "--steps", "18"]),
    "score model, predictor-corrector": ("teacher", ["--steps", "100"]),
}
SHORT = ["1 step", "4 steps", "16 steps", "score, ODE", "score, PC"]


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


def models() -> dict[str, str]:
    """The two that were named, or the bundled ones."""
    if len(sys.argv) > 3:
        return {"student": sys.argv[2], "teacher": sys.argv[3]}
    return {"student": str(bundled("consistency")), "teacher": str(bundled("score"))}


def held_out(folder: Path, size: int, name: str) -> Path:
    """N pictures with their classes in a folder: shapes of a seed that no run trains on, or the model's own data."""
    options = {"name": name, "count": N, "seed": 1, "size": size} if name == "shapes" else {"name": name}
    data, truth = registry.build("datasets", options, None), folder / "truth"
    images, labels = data.batch(list(range(min(N, len(data)))))
    with open_writer(truth, len(images), data.shape, True) as writer:
        writer.write(range(len(images)), images.numpy(), labels)
    return truth


def tasks(shape: tuple[int, ...]) -> dict[str, list[str]]:
    """What is taken away: the colours, the middle of a quarter of the pixels, all but the means of patches."""
    side = shape[1]
    hole = ",".join(str(n) for n in (side // 4, side // 4, side // 2, side // 2))
    colours = {"colorize": []} if shape[0] == 3 else {}
    return colours | {"inpaint": ["--box", hole], "superres": ["--factor", "4" if side > 8 else "2"]}


def known(task: str, image: np.ndarray) -> np.ndarray:
    """What is left of a picture when it has been taken apart."""
    side = image.shape[1]
    hole = box(side, side, side // 4, side // 4, side // 2, side // 2)
    given = {"inpaint": {"mask": hole}, "superres": {"factor": 4 if side > 8 else 2}}.get(task, {})
    operator = registry.build("operators", task, to_model(torch.from_numpy(image.copy()))[None], **given)
    return to_pixels(operator.start)[0].numpy()


def picture(path: Path) -> np.ndarray:
    pixels = np.asarray(Image.open(path))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "editing-table")
    folder.mkdir(parents=True, exist_ok=True)
    found = models()
    header = read_header(found["student"])
    truth = held_out(folder, header.shape[1], header.data["name"])
    names = sorted(path.name for path in truth.glob("*.png"))[:SHOWN]

    print("| task | way | NFE | seconds an image | PSNR | SSIM |\n|---|---|---|---|---|---|")
    rows: list[list[Cell]] = []
    for task, how in tasks(header.shape).items():
        shown: dict[str, list[Cell]] = {}
        for name in names:
            image = picture(truth / name)
            shown[name] = [(image, [task]), (known(task, image), [])]
        for i, (title, (model, options)) in enumerate(WAYS.items()):
            out = folder / f"{task}-{i}"
            argv = ["edit", task, str(truth), *how, *options, "--truth", str(truth), "-m", found[model], "-o", str(out)]
            result = kept(folder / f"{task}-{i}.json", *argv)
            seconds = result["seconds"] / result["images"]
            figures = f"{result['nfe']} | {seconds:.3f} | {result['psnr']:.2f} | {result['ssim']:.3f}"
            print(f"| {task} | {title} | {figures} |", flush=True)
            for name in names:
                shown[name].append((picture(out / name), []))
        rows += shown.values()
    write_picture(folder / "editing.png", labelled_sheet(["truth", "known", *SHORT], rows))


if __name__ == "__main__":
    main()
