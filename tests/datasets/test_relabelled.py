"""The same items under other numbers."""

import torch

from cmtool.datasets.digits import digits
from cmtool.datasets.toy import ring
from cmtool.datasets.views import DatasetSlice, RelabelledDataset
from cmtool.testing import check_dataset


class One:
    """A data set without ``batch``."""

    shape, classes, notice = (1, 2, 2), ("a", "b"), "made for a test"

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.full(self.shape, index, dtype=torch.uint8), index % 2


def test_labels_are_those_of_the_model():
    numbers = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    data = RelabelledDataset(digits(), numbers, tuple("9876543210"))
    check_dataset(data)
    assert [data[i][1] for i in range(10)] == numbers
    assert all(torch.equal(data[i][0], digits()[i][0]) for i in range(10))
    check_dataset(DatasetSlice(data, 3, 20))


def test_without_a_way_to_read_many_at_once():
    data = RelabelledDataset(One(), [2, 0], ("x", "y", "z"))
    check_dataset(data)
    assert data.batch([1, 2, 3])[1].tolist() == [0, 2, 0]
    assert data.inventory is None


def test_without_labels():
    check_dataset(RelabelledDataset(ring(count=8), [], ()))
