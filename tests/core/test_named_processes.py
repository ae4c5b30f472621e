"""Processes and sigma schedules by name, with options."""

import pytest
import torch

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.discrete_processes import DDPM
from cmtool.core.named_processes import build_process, process_of
from cmtool.core.named_schedules import sigma_schedule
from cmtool.core.process import EDM, VE, VP, SubVP
from cmtool.core.rescaled_processes import RescaledProcess, SquareRoot
from cmtool.core.sigma_schedules import karras, log_uniform
from cmtool.errors import UsageError

HALF = torch.tensor([0.3, 0.5], dtype=torch.float64)


def test_options_of_a_process():
    assert build_process({"name": "vp", "beta_min": "0.2", "beta_max": 15}, 0.01, 50) == VP(0.2, 15.0)
    assert build_process({"name": "subvp", "beta_max": 12}, 0.01, 50) == SubVP(0.1, 12.0)
    assert build_process({"name": "ve", "sigma_max": 60}, 0.01, 50) == VE(0.01, 60.0)
    assert build_process({"name": "vp", "start": 1e-3}, 0.01, 50) == VP.spanning(0.01, 50, 1e-3)
    assert build_process({"name": "ve", "scaling": "vp"}, 0.01, 50) == RescaledProcess(VE(0.01, 50), unit=True)
    assert build_process({"name": "sqrt", "scaling": "none"}, 0.01, 50) == RescaledProcess(SquareRoot(), unit=False)
    ladder = build_process({"name": "ddpm", "steps": 100, "beta_max": 10}, 0.01, 50)
    torch.testing.assert_close(ladder.sigma(HALF * 100), DDPM.linear(100, 0.1, 10.0).sigma(HALF * 100))


def test_what_is_not_said_is_the_models():
    own = Preconditioning(form="noise", time="vp", time_scale=999.0, beta_min=0.2, beta_max=15.0)
    assert process_of(own, 0.01, 50) == VP(0.2, 15.0)
    assert build_process("vp", 0.01, 50, own) == VP(0.2, 15.0)
    assert build_process({"beta_max": 12}, 0.01, 50, own) == VP(0.2, 12.0)
    assert build_process({"scaling": "vp"}, 0.01, 50) == RescaledProcess(EDM(), unit=True)


def test_a_network_is_told_the_time_of_its_own_betas():
    for name, process in (("vp", VP(0.2, 15.0)), ("subvp", SubVP(0.2, 15.0))):
        own = Preconditioning(form="noise", time=name, time_scale=999.0, beta_min=0.2, beta_max=15.0)
        torch.testing.assert_close(own(process.sigma(HALF))[3], 999 * HALF)
    rungs, ladder = torch.tensor([1.0, 400.0, 1000.0], dtype=torch.float64), DDPM.linear(1000, 0.2, 15.0)
    own = Preconditioning(form="noise", time="ddpm", beta_min=0.2, beta_max=15.0)
    torch.testing.assert_close(own(ladder.sigma(rungs))[3], rungs - 1)
    told = []
    net = torch.nn.Identity()
    net.forward = lambda x, c, labels=None: told.append(c) or x  # type: ignore[method-assign]
    Denoiser(net, own)(torch.zeros(3, 2), ladder.sigma(rungs))
    torch.testing.assert_close(told[0].double(), rungs - 1)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"name": "vp", "beta_mx": 15}, "unknown option of process 'vp' 'beta_mx'"),
        ({"name": "vp", "beta_max": "much"}, "option 'beta_max' of process 'vp' must be a number"),
        ({"name": "vp", "beta_min": 20, "beta_max": 5}, "not from 20 to 5"),
        ({"name": "vp", "start": 1e-3, "beta_max": 5}, "follow from its start"),
        ({"name": "vp", "start": 2}, "a time between 0 and 1"),
        ({"name": "ve", "sigma_min": 90}, "not from 90 to 50"),
        ({"name": "ve", "scaling": "vee"}, "unknown value of option 'scaling' of process 've' 'vee'"),
        ({"name": "edm", "beta_max": 15}, "unknown option of process 'edm' 'beta_max'"),
    ],
)
def test_what_no_process_has_is_refused(spec, complaint):
    with pytest.raises(UsageError, match=complaint):
        build_process(spec, 0.01, 50.0)


def test_options_of_a_spacing():
    def levels(**spec):
        return sigma_schedule(spec, 7, 0.01, 50.0, EDM())

    torch.testing.assert_close(levels(name="karras", rho=3), karras(7, 0.01, 50.0, 3.0))
    torch.testing.assert_close(levels(name="log", sigma_max=20), log_uniform(7, 0.01, 20.0))
    torch.testing.assert_close(levels(sigma_min=0.1), karras(7, 0.1, 50.0))
    times = torch.linspace(1, 1e-3, 7, dtype=torch.float64)
    torch.testing.assert_close(levels(name="vp", start=1e-3), VP.spanning(0.01, 50.0, 1e-3).sigma(times))
    betas = VP(0.2, 15.0)
    torch.testing.assert_close(
        betas.time(levels(name="vp", beta_min=0.2, beta_max=15)).diff().std(), torch.zeros(()).double()
    )
    ladder = DDPM.cosine(200, 0.01, 0.99).sigma(torch.arange(201, dtype=torch.float64))
    found = levels(name="iddpm", steps=200, shift=0.01, most=0.99)
    assert torch.isin(found, ladder).all() and len(found) == 7 and 0.01 <= found[-1] < found[0] <= 50
    for spec, complaint in (
        ({"name": "karras", "rh": 3}, "unknown option of sigma schedule"),
        ({"sigma_min": 90}, "90 to 50"),
    ):
        with pytest.raises(UsageError, match=complaint):
            levels(**spec)
