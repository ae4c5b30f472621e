"""LPIPS as OpenAI train with it (piq, average pooling), on recorded random features."""

from functools import partial

from claims_training import uniform_of
from harness import Case, claim, gradients, openai_model, scalings

from cmtool.objectives.consistency import Consistency, adjacent_pair, along_noise
from cmtool.objectives.lpips import LPIPS
from cmtool.objectives.objective import Batch, Requirements


@claim("lpips")
def perceptual(case: Case) -> None:
    (drawn,) = [call for call in case.settings["noise_calls"] if call["call"] == "randint"]
    n, of = drawn["high"] - drawn["low"] + 1, scalings(case)  # theirs draw the number of the upper level
    linear = {f"lin{i}.model.1.weight": case.inputs[f"lin{i}"] for i in range(5)}
    metric = partial(LPIPS, case.weights["vgg"], linear, "average")
    case.check("lpips", metric(resize=False)(case.inputs["a"], case.inputs["b"]))
    case.check("lpips_224", metric(resize=True)(case.inputs["a"], case.inputs["b"]))

    model = openai_model(case, boundary=True)
    objective = Consistency(
        lambda u, progress: adjacent_pair(u, n, of["sigma_min"], of["sigma_max"], of["rho"]),
        along_noise,
        metric(resize=True),
        requirements=Requirements("consistency", of["sigma_min"]),
    )
    objective.target = openai_model(case, "target", boundary=True)
    batch = Batch(case.inputs["a"], case.inputs["noise"], uniform_of(case.tape.next(), n), case.inputs.get("y"))
    loss = objective.loss(model, batch, 0.0)
    case.check("loss", loss)
    loss.mean().backward()
    for key, gradient in gradients(model).items():
        case.check(f"grad.{key}", gradient)
