"""The contracts of the plugins, as functions that a plugin's author calls from a test.

    from cmtool.testing import check_backbone
    from my_package import transformer

    def test_contract():
        check_backbone(transformer, width=32)

Each raises AssertionError with one sentence that says what the contract wants.
"""

from cmtool.testing.backbone import check_backbone
from cmtool.testing.common import small_model, wake
from cmtool.testing.data import check_dataset, check_features
from cmtool.testing.logger import check_logger
from cmtool.testing.metric import check_metric
from cmtool.testing.objective import check_objective
from cmtool.testing.operator import check_operator
from cmtool.testing.solver import check_process, check_sampler, check_schedule, check_solver

__all__ = [
    "check_backbone",
    "check_dataset",
    "check_features",
    "check_logger",
    "check_metric",
    "check_objective",
    "check_operator",
    "check_process",
    "check_sampler",
    "check_schedule",
    "check_solver",
    "small_model",
    "wake",
]
