"""The command ``npnet``: a command's name → its module → its options → its one function."""

from __future__ import annotations

import importlib
import logging
import os
import sys

from npnet_core.errors import InputError

# Each is a module beside this one, with a frozen dataclass Options and run(options); only the one called is imported.
COMMANDS = {
    "collect": "prompts → a noise prompt dataset",
    "inspect": "what an NPNet, preference model or dataset holds",
    "convert": "published files → ours: an NPNet, a preference model, noise pairs",
    "fit": "a noise prompt dataset → an NPNet",
    "evaluate": "a base model, prompts and NPNets → does golden noise help?",
    "sample": "a prompt → its standard and golden image",
    "demo": "the whole method on a tiny model that comes with this package: a page of pictures and figures",
}

RESUMED = ("collect", "fit", "evaluate", "demo")  # commands that keep what is finished

USAGE = "usage: npnet COMMAND …\n\n" + "".join(f"  {name:10}{what}\n" for name, what in COMMANDS.items())
HELP = USAGE + "\nnpnet COMMAND --help explains one.\n"


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns the exit code: 0 done, 1 failed (a full disk, a fit that diverged) or done in part (a metric without its
    weights), 2 wrong use, 130 interrupted (by Ctrl-C or SIGTERM; what was finished is written).
    """
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    name, *rest = argv
    if name not in COMMANDS:
        print(f"npnet: there is no command {name}\n{USAGE}", end="", file=sys.stderr)
        return 2
    from trainer.commands.options import parse

    command = importlib.import_module(f"trainer.commands.{name}")
    try:
        code = command.run(parse(command.Options, name, rest)) or 0
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"npnet {name}: {error}", file=sys.stderr)
        return 1 if getattr(error.__cause__, "errno", None) else 2  # the system refused, as when the disk is full
    except BrokenPipeError:  # who reads the output has seen enough; nothing may be left to flush at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, FloatingPointError) as error:  # a full disk, a missing right, a fit that diverged
        print(f"npnet {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = "; the same command goes on where it was" if name in RESUMED else ""
        print(f"npnet {name}: interrupted{again}", file=sys.stderr)
        return 130
