"""Every option of every command: its default, type, check and help, once."""

from cmtool.settings.converting import ConvertOptions
from cmtool.settings.editing import EditOptions, InterpOptions
from cmtool.settings.fetching import FetchOptions
from cmtool.settings.judging import FidOptions, InfoOptions, LevelsOptions, LikelihoodOptions
from cmtool.settings.sampling import SampleOptions
from cmtool.settings.training import DistillOptions, TrainCtOptions, TrainOptions, TrainScoreOptions

__all__ = [
    "ConvertOptions",
    "DistillOptions",
    "EditOptions",
    "FetchOptions",
    "FidOptions",
    "InfoOptions",
    "InterpOptions",
    "LevelsOptions",
    "LikelihoodOptions",
    "SampleOptions",
    "TrainCtOptions",
    "TrainOptions",
    "TrainScoreOptions",
]
