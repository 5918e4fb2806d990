"""Python imports this first where this folder is on PYTHONPATH: there is no network, and nothing is unpickled.

An attempt raises and is a line in $REFUSED_LOG, also if somebody swallows what was raised, also in child processes. A
process may talk to others on its own machine.
"""

import os
import sys

NETWORK = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}
HERE = {"127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "", None}


def is_here(host: object) -> bool:
    return host in HERE or host == os.uname().nodename if hasattr(os, "uname") else host in HERE


def refuse(event: str, args: tuple) -> None:
    if event in NETWORK:
        target = args[-1] if event in ("socket.connect", "socket.sendto") else args[0]
        if isinstance(target, (str, bytes)) and event in ("socket.connect", "socket.sendto"):
            return  # a socket in the file system
        if is_here(target[0] if isinstance(target, tuple) else target):
            return
    elif event == "pickle.find_class":
        target = f"{args[0]}.{args[1]}"
    else:
        return
    log = os.open(os.environ["REFUSED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{os.getpid()} {event} {target!r}\n".encode())
    os.close(log)
    raise OSError(f"{event} {target!r} is refused")


sys.addaudithook(refuse)
