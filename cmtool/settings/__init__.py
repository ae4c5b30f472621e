"""Every option of every command: its default, type, check and help, once."""

from cmtool.settings.editing import EditOptions, InterpOptions
from cmtool.settings.files import ConvertOptions, FetchOptions, StatusOptions
from cmtool.settings.sampling import SampleOptions
from cmtool.settings.scoring import FidOptions, InfoOptions, LikelihoodOptions, SearchSigmasOptions
from cmtool.settings.training import DistillOptions, TrainCtOptions, TrainOptions, TrainScoreOptions

__all__ = [
    "ConvertOptions",
    "DistillOptions",
    "EditOptions",
    "FetchOptions",
    "FidOptions",
    "InfoOptions",
    "InterpOptions",
    "LikelihoodOptions",
    "SampleOptions",
    "SearchSigmasOptions",
    "StatusOptions",
    "TrainCtOptions",
    "TrainOptions",
    "TrainScoreOptions",
]
