"""A program for several processes: it trains what its first argument, a JSON list of calls, says, and prints hashes."""

import hashlib
import json
import os
import sys
import time
from collections import deque

import torch

import cmtool


def hash_of(module: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    torch.set_num_threads(int(os.environ.get("THREADS", "1")))
    for n, call in enumerate(json.loads(sys.argv[1])):
        began, (last,) = time.monotonic(), deque(cmtool.train(**call), maxlen=1)
        kept = {"weights": hash_of(last.model.model), "average": hash_of(last.ema.model), "loss": float(last.loss)}
        seconds = time.monotonic() - began
        if folder := os.environ.get("KEEP"):
            torch.save(last.model.model.state_dict(), f"{folder}/{os.environ.get('RANK', '0')}-{n}.pt")
        print(json.dumps({"rank": os.environ.get("RANK", "0"), "seconds": round(seconds, 1), **kept}), flush=True)


if __name__ == "__main__":
    main()
