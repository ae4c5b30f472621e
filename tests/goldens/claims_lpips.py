"""LPIPS as OpenAI train with it (piq, average pooling), on recorded random features."""

from functools import partial

from claims_training import uniform_of
from harness import Case, claim, gradients, openai_model

from cmtool.objectives.consistency import Consistency, along_noise
from cmtool.objectives.levels import adjacent
from cmtool.objectives.lpips import LPIPS
from cmtool.objectives.objective import Batch

LEVELS = 18  # of the recorded indices, which lie in [0, 17)


@claim("lpips")
def perceptual(case: Case) -> None:
    linear = {f"lin{i}.model.1.weight": case.inputs[f"lin{i}"] for i in range(5)}
    metric = partial(LPIPS, case.weights["vgg"], linear, "average")
    case.check("lpips", metric(resize=False)(case.inputs["a"], case.inputs["b"]))
    case.check("lpips_224", metric(resize=True)(case.inputs["a"], case.inputs["b"]))

    model = openai_model(case, sigma_min=0.002)
    objective = Consistency(
        lambda u, progress: adjacent(u, LEVELS, 0.002, 80.0), along_noise, metric(resize=True), sigma_min=0.002
    )
    objective.target = openai_model(case, "target", sigma_min=0.002)
    batch = Batch(case.inputs["a"], case.inputs["noise"], uniform_of(case.tape.next(), LEVELS))
    loss = objective.loss(model, batch, 0.0)
    case.check("loss", loss)
    loss.mean().backward()
    for key, gradient in gradients(model).items():
        case.check(f"grad.{key}", gradient)
