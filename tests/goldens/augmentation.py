"""EDM's augmentation with the recorded draws."""

from dataclasses import asdict

import torch
from harness import Case
from torch import Tensor

from cmtool.training.augment import CHANGES, Augment
from cmtool.training.augmentations import Spread


def augmented(case: Case, images: Tensor, calls: list[dict]) -> tuple[Tensor, Tensor]:
    """The recorded draws as the uniform numbers that ours are made from."""
    given = case.spec["augment"].options({"p": 1.0, **dict.fromkeys(CHANGES, 0.0), **asdict(Spread())})
    strengths, spread = ({name: float(given[name]) for name in names} for names in (CHANGES, asdict(Spread())))
    augment = Augment(float(given["p"]), strengths, Spread(**spread))
    return augment(images, torch.cat([uniforms(case.tape.next().double(), call) for call in calls], 1))


def uniforms(draw: Tensor, call: dict) -> Tensor:
    """[B, 1], or [B, 2] where two numbers an image were drawn at once."""
    if call["call"] == "randint":
        draw = (draw + 0.5) / call["high"]
    elif call["call"] == "randn":
        draw = torch.special.ndtr(draw)
    one = draw.dim() in (1, 3, 4)  # theirs are [B], [B, 1, 1] and [B, 1, 1, 1], or two of them behind one another
    return draw.reshape(-1, 1) if one else draw.flatten(1).T
