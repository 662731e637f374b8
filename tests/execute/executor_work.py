"""Work for executors, in a module that workers can import."""

import os
import signal
import time
from pathlib import Path

import numpy as np


class Square:
    """Holds an array, as trials hold vectors."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    def __call__(self, item: int) -> tuple[int, bool, int]:
        return int(self.table[item]) ** 2, bool(self.table.flags.writeable), os.getpid()


class Misbehave:
    """Sleeps, dies, raises or fills memory, as the item says; notes every beginning in a file."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, item: tuple[str, int]) -> tuple[str, int]:
        what, number = item
        with self.log.open("a") as stream:
            stream.write(f"{what} {number} {os.getpid()}\n")
        begun = self.log.read_text().count(f"{what} {number} ")
        if what == "sleep":
            time.sleep(number)
        elif what == "die" or (what == "die-once" and begun == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "raise":
            raise ArithmeticError(f"number {number}")
        elif what == "fill":
            held = np.ones(number * 125_000)  # megabytes
            time.sleep(30)
            del held
        elif what == "child":
            os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600")
            time.sleep(600)
        return what, number


class Meet:
    """Waits until so many items are begun, at most 30 seconds; says where, when and on which GPUs it ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, item: tuple[int, int]) -> tuple[str, int, float, float]:
        number, others = item
        begun = time.monotonic()
        (self.folder / f"item-{number}").touch()
        while len(list(self.folder.glob("item-*"))) < others and time.monotonic() < begun + 30:
            time.sleep(0.02)
        time.sleep(0.2)
        return os.environ.get("CUDA_VISIBLE_DEVICES", "all"), os.getpid(), begun, time.monotonic()


class Fragile(Exception):
    """An exception that pickles and does not come back."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


class Rooted:
    """What no pickler carries."""

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("rooted here")


def break_oddly(item: int) -> int:
    raise Fragile(item, item)


def threads(_item: int) -> list[int]:
    from threadpoolctl import threadpool_info

    return [int(found["num_threads"]) for found in threadpool_info()]
