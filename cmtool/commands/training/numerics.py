"""What the last bits of a run depend on besides its options and its data: kept with each state, compared on resuming.

The number of threads is not among it: each micro-batch is computed on one (``training/gradients.py``); nor is that of
ranks in exact mode (``training/summation_tree.py``).
"""

from collections.abc import Mapping
from typing import Any

import torch

from cmtool.pipelines.distributed import find_world
from cmtool.pipelines.training_job import TrainingJob
from cmtool.settings import TrainOptions
from cmtool.training.devices import choose_parallel, micro_batch_size, precision_name

__all__ = ["changed_numerics", "numerics"]


def numerics(options: TrainOptions, job: TrainingJob) -> dict[str, Any]:
    """The precision and micro-batch as they are in effect, the version of torch, the device and how it computes."""
    where = next(job.state.model.parameters()).device
    micro = options.micro_batch or micro_batch_size(options.batch, job.header.shape, where)
    found = {
        "precision": precision_name(options.precision, where),
        "micro_batch": min(micro, job.state.micro or micro, options.batch),
        "torch": torch.__version__,
        "device": where.type,
    }
    size = find_world().size
    if size > 1 and choose_parallel(options.parallel, where) != "exact":
        found["parallel"] = f"{choose_parallel(options.parallel, where)} over {size} ranks"
    if where.type == "cuda":
        return found | {
            "gpu": torch.cuda.get_device_name(where),
            "cudnn": torch.backends.cudnn.version(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return found | ({"cpu": torch.backends.cpu.get_cpu_capability()} if where.type == "cpu" else {})


def changed_numerics(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """``precision: fp32 -> bf16`` for each that differs; nothing where a state of an older version has none."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    return [f"{key}: {then.get(key, 'none')} -> {now.get(key, 'none')}" for key in keys if then]
