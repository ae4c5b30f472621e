"""Every option of every command: its default, type, check and help, once."""

from cmtool.settings.judging import FidOptions, InfoOptions, LevelsOptions
from cmtool.settings.sampling import EditOptions, InterpOptions, SampleOptions
from cmtool.settings.training import DistillOptions, TrainCtOptions, TrainOptions, TrainScoreOptions

__all__ = [
    "DistillOptions",
    "EditOptions",
    "FidOptions",
    "InfoOptions",
    "InterpOptions",
    "LevelsOptions",
    "SampleOptions",
    "TrainCtOptions",
    "TrainOptions",
    "TrainScoreOptions",
]
