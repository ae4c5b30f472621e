"""Continuous-time methods learn the consistency function of the mixture on a line, as ``test_learning`` has it."""

import pytest
from test_learning import STD, consistency_errors, one_step, teacher, tell, trained, transport

from cmtool.objectives.continuous_2023 import ccd, cct
from cmtool.objectives.scm import scd, sct

__all__ = ["teacher"]  # the fixture

# recipe, learning rate, the largest error of any level and the distance of one-step samples that are allowed
METHODS = {
    "scd": (lambda teacher: scd(teacher, sigma_data=STD), 2e-3, 0.12, 0.09),
    "sct": (lambda teacher: sct(sigma_data=STD), 2e-3, 0.2, 0.15),
    "ccd": (lambda teacher: ccd(teacher), 1e-3, 0.12, 0.09),
    "ccd full": (lambda teacher: ccd(teacher, stop=False, clock="grid"), 1e-3, 0.06, 0.05),
    "cct": (lambda teacher: cct(), 3e-4, 0.2, 0.15),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_consistency_function_is_learnt(teacher, name):
    """From the teacher's weights, by 120,000 images; 18 Heun steps alone err by about 0.06, the teacher by 0.9."""
    recipe, lr, error, distance = METHODS[name]
    student = trained(recipe(teacher), images=120_000, lr=lr, parent=teacher)
    found = consistency_errors(student)
    tell(name, found, transport(one_step(student)))
    assert max(found) < error
    assert transport(one_step(student)) < distance
