"""cmtool as a library: train a score model on points, distil it, and compare one step with eighteen.

Everything the commands do is a few calls of the core; this is the whole chain without files, in half a minute.
"""

import os

import torch

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.noise import Noise
from cmtool.core.sampling.loops import initial_noise, last, multistep, probability_flow
from cmtool.core.sigma_schedules import append_zero, karras
from cmtool.core.solvers import heun
from cmtool.datasets.toy import gaussians
from cmtool.evaluation.frechet import Moments, frechet_distance
from cmtool.objectives.consistency_2023 import cd
from cmtool.objectives.edm import edm
from cmtool.objectives.objective import Objective
from cmtool.options.lr_schedule import learning_rate
from cmtool.training.batches import BatchConfig, Batches
from cmtool.training.ema import EMA
from cmtool.training.loop import State, train

IMAGES = int(os.environ.get("CMTOOL_IMAGES", "200000"))


def fit(model: Denoiser, objective: Objective, batches: Batches) -> Denoiser:
    """Train, and return the averaged model."""
    objective.begin(model)
    optimiser = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
    state = State(model, objective, optimiser, EMA(model, half_life=IMAGES / 20))
    for _ in train(state, batches.since(0), IMAGES, lambda n: learning_rate(2e-3, n, IMAGES, 2000, "cosine")):
        pass
    return state.average.model


def moments(points: torch.Tensor) -> Moments:
    found = Moments()
    found.update(points)
    return found


def main() -> None:
    torch.set_num_threads(1)
    data = gaussians(None)
    batches = Batches(data, BatchConfig(128, conditional=False))
    truth = moments(data.batch(range(20_000))[0])

    torch.manual_seed(0)
    teacher = fit(Denoiser(mlp(data.shape, 0), Preconditioning()), edm(), batches)
    student = Denoiser(mlp(data.shape, 0), Preconditioning(sigma_min=0.002))
    student.load_state_dict(teacher.state_dict())
    student = fit(student, cd(teacher), batches)

    noise, levels = Noise(range(20_000)), karras(18)
    x = initial_noise(noise, data.shape, levels[0])
    walked = last(probability_flow(teacher, x, append_zero(levels), heun()))
    jumped = last(multistep(student, x, levels[:1], noise))
    print(f"teacher, 35 evaluations: Frechet distance {frechet_distance(moments(walked), truth):.4f}")
    print(f"student,  1 evaluation:  Frechet distance {frechet_distance(moments(jumped), truth):.4f}")
    print(f"the student is {float((walked - jumped).square().mean().sqrt()):.3f} from its teacher, data have size 0.5")


if __name__ == "__main__":
    main()
