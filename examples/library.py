"""cmtool as a library: train a score model on points, distil it into one step, draw, measure, and edit a picture.

The five public functions, without files, in about half a minute.
"""

import os

import torch

import cmtool

IMAGES = int(os.environ.get("CMTOOL_IMAGES", "100000"))
SMALL = {"name": "mlp", "width": 64}


def last(reports):
    """The report after the last step of a training."""
    *_, report = reports
    return report


def main() -> None:
    torch.set_num_threads(1)
    points = {"images": IMAGES, "batch": 128, "conditional": False}
    teacher = last(cmtool.train("edm", "gaussians", backbone=SMALL, **points)).ema
    student = last(cmtool.train("cd", "gaussians", teacher=teacher, **points)).ema

    for name, model in (("teacher", teacher), ("student", student)):
        batches = cmtool.sample(model, n=4096, batch=1024)
        scores = cmtool.score(batches, "gaussians", features="points")
        print(f"{name}: Frechet distance {scores['FD-points']:.4f}")

    bundled = cmtool.load("shapes-consistency")
    (image,) = next(cmtool.sample(bundled, n=1, steps=2)).images
    grey = image.float().mean(0, keepdim=True).round().byte()
    for edited in cmtool.edit("colorize", grey, bundled, steps=4, variants=2):
        print(f"colorized with seeds {list(edited.seeds)}; grey values off by {edited.known_error:.2g} of 255")


if __name__ == "__main__":
    main()
