"""A slice gives what Python's own slices give."""

import pytest
import torch

from cmtool.datasets.digits import digits
from cmtool.datasets.toy import ring
from cmtool.datasets.views import DatasetSlice
from cmtool.errors import UsageError


class OneByOne:
    """A data set without ``batch``."""

    shape, classes, notice = (1, 2, 2), ("even", "odd"), "none"

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return torch.full((1, 2, 2), index, dtype=torch.uint8), index % 2


@pytest.mark.parametrize("span", [(0, 5, 1), (3, None, 4), (None, -1, 2), (-6, None, 1), (2, 999, 7)])
def test_a_slice_is_pythons(span):
    part = DatasetSlice(OneByOne(), *span)
    expected = list(range(20))[slice(*span)]
    assert [int(part[i][0].max()) for i in range(len(part))] == expected
    images, labels = part.batch(range(len(part)))
    assert images.flatten(1).max(1).values.tolist() == expected
    assert labels.tolist() == [i % 2 for i in expected]
    assert int(part[-1][0].max()) == expected[-1]
    with pytest.raises(IndexError):
        part[len(part)]


def test_a_slice_has_the_contract_of_its_data_set():
    data = digits()
    part = DatasetSlice(data, 1000)
    assert (part.shape, part.classes, part.notice, len(part)) == (data.shape, data.classes, data.notice, 797)
    assert torch.equal(part.batch([5, 1])[0], data.images[[1005, 1001]])
    points = DatasetSlice(ring(count=50), 10, 20)
    assert points.batch([0])[1] is None
    assert DatasetSlice(part, 7)[0][1] == data[1007][1]


def test_an_empty_slice_is_refused():
    with pytest.raises(UsageError, match="2000:3000"):
        DatasetSlice(digits(), 2000, 3000)
    with pytest.raises(UsageError, match="step"):
        DatasetSlice(digits(), step=0)
