"""Between grey levels and the interval [-1, 1]."""

import torch

from cmtool.core.pixels import to_model, to_pixels

ALL = torch.arange(256, dtype=torch.uint8)


def test_every_grey_level_survives_the_round_trip():
    assert torch.equal(to_pixels(to_model(ALL)), ALL)
    assert to_model(ALL)[[0, -1]].tolist() == [-1.0, 1.0]


def test_values_outside_are_clipped_and_values_inside_go_to_the_nearest_level():
    x = torch.tensor([-1.7, -1.0, -0.99, 0.0, 0.0118, 1.2])
    assert to_pixels(x).tolist() == [0, 0, 1, 128, 129, 255]


def test_points_are_in_model_units_already():
    x = torch.tensor([[1.5, -2.0]])
    assert to_model(x) is x
