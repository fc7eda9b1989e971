"""Orphans: a process of a run ends itself when the one that started it is gone."""

import os
import sys
import threading
import time

POLL_SECONDS = 1.0


def end_with_parent() -> None:
    """Watch the process that started this one, where that was another process of the run or torchrun.

    Lightning's launcher ends all processes when one that it started dies, but nothing when it dies itself: the others
    would wait for its part of a sum until the group's time is over, 30 minutes later.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="parent-watch").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    rank = os.environ["LOCAL_RANK"]
    print(f"error: process {rank} ends, because the one that started it is gone", file=sys.stderr, flush=True)
    os._exit(1)  # the main thread may never come back from a collective call
