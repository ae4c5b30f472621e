"""cmtool: from images to a one-step generator.

The public functions, for use from Python; the commands are made of the same parts:

    load      a model of ours, a bundled one or one of another program
    sample    images of a model, some at a time
    edit      inpainting, colorization, super-resolution and other tasks by a model that was trained for none of them
    score     FID and other metrics of images
    train     a score model, a distilled one, or a consistency model

Their errors are those of ``cmtool.errors``, their keywords the options of the commands. Everything else is internal and
may change, but for what plugins are made with (``docs/extending.md``). ``import cmtool`` loads no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmtool.pipelines.editing import edit
    from cmtool.pipelines.inputs import load
    from cmtool.pipelines.sampling import sample
    from cmtool.pipelines.scoring import score
    from cmtool.pipelines.training import train

__version__ = "0.1.0"
__all__ = ["__version__", "edit", "load", "sample", "score", "train"]

_MODULES = {"edit": "editing", "load": "inputs", "sample": "sampling", "score": "scoring", "train": "training"}


def __getattr__(name: str) -> Any:
    """A public function, from its module, which is imported at the first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'cmtool' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"cmtool.pipelines.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
