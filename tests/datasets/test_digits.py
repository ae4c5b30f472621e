"""The real digits, against scikit-learn's own array."""

import sys

import pytest
import torch

from cmtool.datasets.digits import digits
from cmtool.errors import MissingAsset, UsageError


def test_the_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    truth, data = load_digits(), digits()
    assert (len(data), data.shape, data.classes) == (1797, (1, 8, 8), tuple("0123456789"))
    images, labels = data.batch(range(1797))
    assert images.dtype == torch.uint8
    assert labels.tolist() == truth.target.tolist()
    # 16 grey steps: 255 / 16 apart, so that the ink comes back from the pixels.
    assert torch.equal((images[:, 0].double() * 16 / 255).round(), torch.from_numpy(truth.images))
    assert sorted(images.unique().tolist()) == [round(255 * v / 16) for v in range(17)]
    image, label = data[100]
    assert torch.equal(image, images[100])
    assert label == 4
    assert "Alpaydin" in data.notice
    assert "CC BY 4.0" in data.notice


def test_larger_digits_repeat_pixels():
    small, large = digits().batch([5, 7])[0], digits(size=16).batch([5, 7])[0]
    assert large.shape == (2, 1, 16, 16)
    for dy in (0, 1):
        for dx in (0, 1):
            assert torch.equal(large[:, :, dy::2, dx::2], small)


def test_what_digits_cannot_do_is_said(monkeypatch):
    with pytest.raises(UsageError, match="8 x 8"):
        digits(size=12)
    with pytest.raises(UsageError, match="reads nothing"):
        digits("/data")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingAsset) as caught:
        digits()
    assert caught.value.hint == "pip install 'cmtool[digits]'"
