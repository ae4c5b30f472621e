"""The names in an archive: which are pictures, the folder that they share, and the list of labels that counts."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from posixpath import basename, dirname

from cmtool.datasets.storage import is_picture, list_some, show_path, without_pictures
from cmtool.errors import BadFile, CmtoolError
from cmtool.label_files import LABELS, label_file, shared_folder
from cmtool.pictures import SUFFIXES, unread_kinds
from cmtool.user_paths import is_visible

__all__ = ["ArchiveNames", "no_pictures", "whole"]


class ArchiveNames:
    """Of the files and folders of an archive: ``members``, those that are pictures, in their order.

    ``names`` are the same below the folder ``top`` in which everything lies, ``list`` is the path of ``dataset.json``,
    or None, ``labels_in`` its folder in the sense of ``names``; the rest is as of ``storage.ImageStorage``.
    """

    def __init__(self, path: Path, files: Sequence[str], folders: Sequence[str] = ()):
        if len(set(files)) != len(files):
            twice = Counter(files).most_common(1)[0][0]
            raise BadFile(f"{show_path(str(path))} holds {show_path(twice)} twice")
        visible = [name for name in files if is_visible(name)]
        self.members = sorted(filter(is_picture, visible))
        if not self.members:
            raise no_pictures(path, files)
        self.top = shared_folder([*self.members, *(name for name in visible if basename(name) == LABELS)])
        self.names = [name.removeprefix(self.top) for name in self.members]
        inside = [name.removeprefix(self.top) for name in visible if name.startswith(self.top)]
        labels, self.unused = label_file(inside, self.names)
        self.list, self.labels_in = (self.top + labels, dirname(labels)) if labels else (None, "")
        outer = [name.removeprefix(self.top) for name in folders if name.startswith(self.top)]
        first = {name.partition("/")[0] for name in (*inside, *outer) if "/" in name} - {"", "."}
        self.empty = without_pictures(list(filter(is_visible, first)), self.names)
        self.remark = unread_kinds(visible)


def no_pictures(path: Path, files: Sequence[str]) -> BadFile:
    """What to say of an archive in which no file is a picture that is read."""
    return BadFile(
        f"there are no images in {show_path(str(path))}",
        f"it holds: {list_some(sorted(files))}; read are {', '.join(SUFFIXES)}",
    )


@contextlib.contextmanager
def whole(path: Path, what: str) -> Iterator[None]:
    """Whatever the readers of Python and numpy find wrong becomes a BadFile that calls the file ``what``."""
    try:
        yield
    except (CmtoolError, MemoryError):
        raise
    except Exception as error:  # what they raise on damaged files; no closed list exists
        reason = show_path(" ".join(str(error).split())[:200])
        sentence = f"{show_path(str(path))} is not {what}, or is damaged"
        raise BadFile(f"{sentence}: {reason}" if reason else sentence) from error
