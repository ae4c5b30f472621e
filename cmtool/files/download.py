"""Getting a published file: whole and proven to be the right one, or not there at all."""

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from cmtool.assets import Asset
from cmtool.errors import BadFile, MissingAsset
from cmtool.files.atomic import replace_folder, write_file

__all__ = ["download", "forbidden"]

CHUNK, PATIENCE = 1 << 20, 30.0  # bytes at a time, and seconds without any
OFFLINE = ("CMTOOL_OFFLINE", "HF_HUB_OFFLINE")


def forbidden() -> str | None:
    """The variable that forbids every download, or None."""
    return next((name for name in OFFLINE if os.environ.get(name, "").lower() not in ("", "0", "false", "no")), None)


def download(asset: Asset, path: Path) -> Iterator[int]:
    """Fetch ``asset`` to ``path``, telling again and again how many bytes have come.

    The file appears when the last byte is there and the sha256 is right; until then it has another name.
    MissingAsset when it cannot be reached, or the connection breaks off; BadFile when it is another file.
    """
    digest, done = hashlib.sha256(), 0
    with replace_folder(path) as file:
        for part in _parts(asset, path):
            digest.update(part)
            done += len(part)
            if done > asset.size:
                raise BadFile(f"{asset.url} is larger than the published {asset.size:,} bytes")
            with write_file(path):
                file.write(part)
            yield done
        if done < asset.size:
            raise _unreachable(asset, path, f"the connection broke off after {done:,} of {asset.size:,} bytes")
        if digest.hexdigest() != asset.sha256:
            raise BadFile(
                f"{asset.url} is not the published file: its sha256 is {digest.hexdigest()}, not {asset.sha256}",
                "nothing was kept; somebody between here and there may have changed it",
            )


def _parts(asset: Asset, path: Path) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(asset.url, timeout=PATIENCE) as source:
            while part := source.read(CHUNK):
                yield part
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(asset, path, str(getattr(error, "reason", None) or error)) from error


def _unreachable(asset: Asset, path: Path, reason: str) -> MissingAsset:
    return MissingAsset(
        f"{asset.filename} cannot be fetched from {asset.url}: {reason}",
        f"on a machine with internet: curl -LO {asset.url}, and copy the file to {path}",
    )
