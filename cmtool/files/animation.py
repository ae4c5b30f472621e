"""Frames that move: animated WebP and GIF."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cmtool.files.atomic import write_bytes
from cmtool.pictures import with_channels

__all__ = ["MOVING", "moved_by", "write_animation"]

MOVING = (".webp", ".gif")
READABLE = 256  # pixels that the shorter side of a frame should have at least


def write_animation(target: str | Path, frames: np.ndarray, fps: float, command: str = "") -> None:
    """Frames uint8 [N, C, H, W] as a file that plays for ever, small ones enlarged by repeating pixels.

    It says which ``command`` made it. WebP keeps every value, GIF has 256 colours a frame. WriteFailed.
    """
    scale = max(1, READABLE // min(frames.shape[2:]))
    large = with_channels(frames, 3).repeat(scale, axis=2).repeat(scale, axis=3).transpose(0, 2, 3, 1)
    first, *rest = [Image.fromarray(np.ascontiguousarray(frame)) for frame in large]
    buffer, webp = io.BytesIO(), Path(target).suffix.lower() == ".webp"
    about = {"save_all": True, "append_images": rest, "duration": round(1000 / fps), "loop": 0}
    if webp:
        first.save(buffer, "WEBP", lossless=True, quality=60, xmp=_text(command), **about)
    else:
        first.save(buffer, "GIF", disposal=1, comment=_text(command), **about)
    write_bytes(target, buffer.getvalue())


def moved_by(command: str) -> Callable[[Path], bool]:
    """Whether a file is an animation that this command made."""

    def ours(path: Path) -> bool:
        try:
            with Image.open(path, formats=("WEBP", "GIF")) as image:
                return _text(command) in (image.info.get("xmp"), image.info.get("comment"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            return False

    return ours


def _text(command: str) -> bytes:
    return f"cmtool {command}".encode()
