import pytest
import torch

from cmtool.errors import UsageError
from cmtool.features.inputs import rgb


def test_grey_is_repeated_and_colour_is_left_alone():
    grey = torch.arange(8, dtype=torch.uint8).reshape(2, 1, 2, 2)
    assert torch.equal(rgb(grey, "small"), torch.cat([grey] * 3, dim=1))
    colour = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    assert torch.equal(rgb(colour, "small"), colour)


def test_what_is_no_picture_is_refused():
    with pytest.raises(UsageError, match="'small' measure images, not points"):
        rgb(torch.zeros(4, 2), "small")
    with pytest.raises(UsageError, match="1 or 3 channels, not 4"):
        rgb(torch.zeros(1, 4, 2, 2), "small")
