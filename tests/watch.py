"""What code does outside its own memory, seen through Python's audit events.

    with watch(folder) as seen:
        ...
    assert seen == []  # no network, no process, nothing unpickled, nothing written outside `folder`

What a library writes without Python (safetensors) raises no event: compare `listing` before and after.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind")
PROCESSES = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.Popen", "pty.spawn")
UNPICKLING = ("pickle.find_class",)  # torch.load(weights_only=True) looks classes up in a list of its own
CHANGES = {  # event → how many of its first arguments are paths
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "os.chmod": 1,
    "os.truncate": 1,
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_watched: list[tuple[str, list[str]]] = []  # (folder, what was seen) of each `watch` that is open
_installed = False


@contextmanager
def watch(folder: Path) -> Iterator[list[str]]:
    """A list to which everything is added that happens, in any thread, outside of `folder`."""
    global _installed
    if not _installed:  # an audit hook stays for good
        sys.addaudithook(_hook)
        _installed = True
    seen: list[str] = []
    entry = (os.path.realpath(folder), seen)
    _watched.append(entry)
    caches, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield seen
    finally:
        sys.dont_write_bytecode = caches
        _watched.remove(entry)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below a folder with its size and time of change."""
    paths = (Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files))
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths if not path.is_dir()}


def _hook(event: str, args: tuple) -> None:
    if not _watched:
        return
    if event in NETWORK or event in PROCESSES or event in UNPICKLING:
        touched = None
    elif event == "open" and isinstance(args[2], int) and args[2] & WRITING:
        touched = args[:1]
    elif event in CHANGES:
        touched = args[: CHANGES[event]]
    else:
        return
    for folder, seen in _watched:
        if touched is None or any(_outside(path, folder) for path in touched):
            seen.append(f"{event}{args!r}")


def _outside(path, folder: str) -> bool:
    if isinstance(path, int) or path is None:  # a file that is open already
        return False
    path = os.path.abspath(os.fsdecode(path))
    return path != os.devnull and not (path + os.sep).startswith(folder + os.sep)
