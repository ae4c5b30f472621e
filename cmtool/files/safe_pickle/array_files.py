"""Arrays in files of other programs: a pickle, or a file of ``torch.save``, that holds dictionaries of them.

Nothing in the file is run: it is read as data (``outline``), whatever its name ends in.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmtool.errors import BadFile
from cmtool.files.safe_pickle.torch_archive import read

__all__ = ["read_arrays"]


def read_arrays(path: Path) -> Any:
    """An array, or dictionaries of arrays and numbers, out of a ``.pkl`` or ``.pt``; BadFile for anything else.

    What is neither is left out of a dictionary.
    """
    found = as_arrays(read(path))
    if found is None:
        raise BadFile(f"{path} holds no arrays", "get it again from whoever made it")
    return found


def as_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        made = {str(key): as_arrays(inside) for key, inside in value.items()}
        return {key: inside for key, inside in made.items() if inside is not None}
    if isinstance(value, torch.Tensor):
        return (value.float() if value.dtype is torch.bfloat16 else value).numpy().copy()
    return value if isinstance(value, np.ndarray | int | float) else None
