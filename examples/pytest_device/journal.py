"""Counts people at a door, in a file that survives a power cut: ``python3 journal.py FOLDER COUNT``."""

import os
import sys
from pathlib import Path


def read(folder: Path) -> int:
    """Give the count so far; 0 at first."""
    file = folder / "count"
    return int(file.read_text()) if file.exists() else 0


def write(folder: Path, count: int) -> None:
    """Keep a count: it is there when this returns, and never half there."""
    new = folder / "count.new"
    with new.open("w") as file:
        file.write(str(count))
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / "count")
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for _ in range(int(sys.argv[2])):
        write(place, read(place) + 1)
        print(read(place), flush=True)
