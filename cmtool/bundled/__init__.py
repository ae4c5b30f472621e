"""The two models that come with cmtool, ``shapes-score`` and ``shapes-consistency``: 32x32 images of ``shapes``, in ten
classes. They were made by

    cmtool train-score --preset shapes-cpu --run-dir teacher
    cmtool train-ct --preset shapes-stable --init teacher --run-dir student
    cmtool convert teacher -o shapes-score.safetensors --dtype fp16
    cmtool convert student -o shapes-consistency.safetensors --dtype fp16
"""

from importlib.resources import files
from pathlib import Path

from cmtool.errors import BadFile
from cmtool.files.container import digest

__all__ = ["NAMES", "SHA256", "bundled", "find_bundled"]

SHA256 = {
    "score": "f81803f7a847f66651f384b5c8194dabbefdf5f18822ecf9b3040cc98a95c048",
    "consistency": "9acce070688ef7a66b566f5ef7ccb9d68751ecd5d9054a8b36417bb13456e4b2",
}
NAMES = tuple(f"shapes-{kind}" for kind in SHA256)


def bundled(kind: str) -> Path:
    """The bundled model of a kind, "score" or "consistency"; BadFile when it is not the one that was shipped."""
    path = Path(str(files(__name__) / f"shapes-{kind}.safetensors"))
    if digest(path) != SHA256[kind]:
        raise BadFile(f"{path} is not the model that came with cmtool", "install cmtool again")
    return path


def find_bundled(path: Path) -> Path:
    """The bundled model that ``shapes-score`` or ``shapes-consistency`` names, unless a file of that name is there."""
    kind = str(path).removeprefix("shapes-")
    return bundled(kind) if str(path) == f"shapes-{kind}" and kind in SHA256 and not path.exists() else path
