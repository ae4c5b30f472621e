"""How a rank hears that another one has failed, while it waits for that one in a collective."""

import json
import threading
import time
from contextlib import suppress

from torch.distributed.distributed_c10d import Store

from cmtool.text_files import dump_json

__all__ = ["FAILURE", "FailureWatch"]

FAILURE, READ = "failure", "failure/read"
PAUSE = 0.2  # seconds between two looks into the store
LINGER = 3.0  # seconds that a rank which fails stays for the others to hear of it, and that these wait for its word


class FailureWatch:
    """A thread that looks into the store of a group of ``size`` ranks for the one that failed first.

    A rank that waits in a collective hears of the other's end only when its connection closes; where the other one has
    the store, that is gone then, too. So each rank listens all the while, and who fails stays until all have heard.
    """

    def __init__(self, store: Store, rank: int, size: int):
        self.store, self.rank, self.size = store, rank, size
        self.code: int | None = None
        self._heard, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, name="failure-watch", daemon=True)
        self._thread.start()

    def claim(self, code: int) -> bool:
        """Tell the others that this rank ends with an exit code; False where another one was first."""
        self.close()
        if self.code is not None:
            return False
        mine = dump_json({"rank": self.rank, "code": code})
        with suppress(RuntimeError):  # the process that had the store is gone
            first = self.store.compare_set(FAILURE, "", mine).decode()
            if first != mine:
                self._take(first)
                return False
            until = time.monotonic() + LINGER
            while self.store.add(READ, 0) < self.size - 1 and time.monotonic() < until:
                time.sleep(PAUSE / 4)
        return True

    def wait(self) -> int | None:
        """The exit code of the rank that failed first, or None where none says within seconds that it did."""
        self._heard.wait(LINGER)
        return self.code

    def close(self) -> None:
        """Listen no longer."""
        self._closed.set()
        self._thread.join()

    def _listen(self) -> None:
        with suppress(RuntimeError):  # the process that had the store is gone
            while not self._closed.wait(PAUSE):
                if self.store.check([FAILURE]):
                    self._take(self.store.get(FAILURE).decode())
                    return

    def _take(self, text: str) -> None:
        self.code = json.loads(text)["code"]
        self._heard.set()
        self.store.add(READ, 1)
