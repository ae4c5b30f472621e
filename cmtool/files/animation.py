"""Frames that move: animated WebP and GIF."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from cmtool.files.atomic import write_bytes
from cmtool.pictures import with_channels

__all__ = ["MOVING", "write_animation"]

MOVING = (".webp", ".gif")
READABLE = 256  # pixels that the shorter side of a frame should have at least


def write_animation(target: str | Path, frames: np.ndarray, fps: float) -> None:
    """Frames uint8 [N, C, H, W] as a file that plays for ever, small ones enlarged by repeating pixels.

    WebP keeps every value, GIF has 256 colours a frame. WriteFailed.
    """
    scale = max(1, READABLE // min(frames.shape[2:]))
    large = with_channels(frames, 3).repeat(scale, axis=2).repeat(scale, axis=3).transpose(0, 2, 3, 1)
    first, *rest = [Image.fromarray(np.ascontiguousarray(frame)) for frame in large]
    buffer, webp = io.BytesIO(), Path(target).suffix.lower() == ".webp"
    about = {"save_all": True, "append_images": rest, "duration": round(1000 / fps), "loop": 0}
    if webp:
        first.save(buffer, "WEBP", lossless=True, quality=60, **about)
    else:
        first.save(buffer, "GIF", disposal=1, **about)
    write_bytes(target, buffer.getvalue())
