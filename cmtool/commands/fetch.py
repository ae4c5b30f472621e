"""``fetch``: published files that are too large to ship, downloaded when asked and never otherwise."""

from pathlib import Path
from typing import Any

from cmtool.assets import Asset, find, own_folder, verify
from cmtool.commands.console import Console
from cmtool.errors import MissingAsset
from cmtool.files.download import download, forbidden
from cmtool.options import registry
from cmtool.settings import FetchOptions

__all__ = ["run"]


def run(options: FetchOptions, console: Console) -> None:
    """Download what was named, or list what there is."""
    if options.name is None:
        listed = [_describe(name, registry.get("assets", name)) for name in registry.names("assets")]
        console.result({"assets": listed}, "\n".join(map(_line, listed)))
        return
    names = registry.names("assets") if options.name == "all" else [options.name]
    documents = [_fetch(registry.get("assets", name), options.folder, console) for name in names]
    console.result({"fetched": documents}, "\n".join(document["path"] for document in documents))


def _fetch(asset: Asset, folder: Path | None, console: Console) -> dict[str, Any]:
    """The file where it is already, else downloaded; always verified."""
    path = (folder or own_folder()) / asset.filename
    there = path if path.is_file() else None if folder else find(asset)
    if there:
        verify(there, asset)
        console.say(f"{there} is here already, and its sha256 is right")
        return {"name": asset.name, "path": str(there), "bytes": asset.size, "downloaded": False}
    if variable := forbidden():
        raise MissingAsset(
            f"{asset.filename} is not here, and ${variable} forbids downloads",
            f"unset it, or copy the file from a machine with internet to {path}: {asset.url}",
        )
    console.say(f"{asset} from {asset.url} to {path}")
    with console.progress(asset.size, "bytes", f"fetch {asset.name}") as progress:
        for done in download(asset, path):
            progress.update(done)
    return {"name": asset.name, "path": str(path), "bytes": asset.size, "downloaded": True}


def _describe(name: str, asset: Asset) -> dict[str, Any]:
    path = find(asset)
    return {
        "name": name,
        "file": asset.filename,
        "bytes": asset.size,
        "sha256": asset.sha256,
        "url": asset.url,
        "path": path and str(path),
    }


def _line(document: dict[str, Any]) -> str:
    return f"{document['name']:<16}{document['bytes']:>15,}  {document['path'] or 'not here'}"
