"""Where, with how many threads and in which precision."""

import os
import threading
import time

import pytest
import torch

from cmtool.core.deterministic import worker_pool
from cmtool.errors import UsageError
from cmtool.training.devices import choose_device, micro_batch_size, precision, use_threads

THERE = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
HERE = {name for name, there in THERE.items() if there}


def test_auto_is_a_device_that_is_here():
    assert choose_device("auto").type in HERE
    assert (choose_device("auto").type == "cpu") == (len(HERE) == 1)
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:-1", "", "cpu cpu"])
def test_what_is_no_device_is_said_so(name):
    with pytest.raises(UsageError, match="is not a device") as caught:
        choose_device(name)
    assert "cpu" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["cuda:99", "meta", *sorted(THERE.keys() - HERE)])
def test_a_device_that_is_not_here_is_said_so(name):
    with pytest.raises(UsageError, match=f"there is no device '{name}' here"):
        choose_device(name)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_threads_are_as_many_as_asked_for_or_every_core_there_is():
    use_threads(3)
    assert torch.get_num_threads() == 3
    use_threads(None)
    assert torch.get_num_threads() == len(os.sched_getaffinity(0))


def test_a_batch_is_computed_in_four_pieces_where_there_are_cores_to_share():
    cpu, elsewhere = torch.device("cpu"), torch.device("cuda")
    assert [micro_batch_size(batch, (3, 32, 32), cpu) for batch in (1, 8, 20, 32, 64, 130)] == [1, 8, 8, 8, 16, 33]
    assert [micro_batch_size(64, shape, cpu) for shape in ((3, 16, 16), (1, 8, 8), (2,))] == [16, 32, 64]
    assert micro_batch_size(64, (3, 32, 32), elsewhere) == 64


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", [1, 3])
def test_workers_answer_in_order_with_one_core_each_and_leave_the_cores_as_they_were(n):
    torch.set_num_threads(2)
    together = threading.Barrier(n, timeout=30)

    def answer(i: int) -> tuple[int, int]:
        together.wait()
        time.sleep(0.01 * (n - i))
        return i, torch.get_num_threads()

    with worker_pool(n) as work:
        assert list(work(answer, range(n))) == [(i, 1) for i in range(n)]
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="failed"), worker_pool(n):
        raise RuntimeError("failed")
    assert torch.get_num_threads() == 2


def product(context) -> torch.Tensor:
    with context():
        return torch.ones(2, 2) @ torch.full((2, 2), 1 / 3)


def test_precision_of_matrix_products():
    cpu = torch.device("cpu")
    assert product(precision("fp32", cpu)).dtype == torch.float32
    assert product(precision("auto", cpu)).dtype == torch.float32, "bfloat16 is slower on most CPUs"
    low = product(precision("bf16", cpu))
    assert low.dtype == torch.bfloat16
    assert low[0, 0].item() == pytest.approx(2 / 3, rel=2**-8)
