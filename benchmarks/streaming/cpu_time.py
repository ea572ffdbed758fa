"""CPU time of a process with its children (Linux), and a description of the CPU."""

import os
import pathlib
import platform

__all__ = ["device", "of_tree"]


def of_tree(pid: int) -> float:
    """CPU seconds so far of a process, its threads and its living descendants."""
    parents, seconds = {}, {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        number = int(path.parent.name)
        parents[number] = int(fields[1])
        seconds[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    tree = {pid}
    while added := {each for each, parent in parents.items() if parent in tree} - tree:
        tree |= added
    return sum(seconds.get(each, 0.0) for each in tree)


def device() -> str:
    """Cores that this process may use, and their architecture."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU cores, {platform.machine()}"
