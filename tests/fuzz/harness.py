"""Cases by the hundred: each is refused with a sentence or goes through, and leaves no trace where it should not.

    def case(random, folder):                        # files, if any, go into the new, empty folder
        ...
        return "what is odd about it", lambda: …     # what is tried

    fuzz("kind", case, tmp_path)

`make test` tries FUZZ_CASES of each kind (default 25), `make fuzz` many, for at most FUZZ_SECONDS each; the table of
all kinds is then in build/fuzz.md. A case depends on FUZZ_SEED (default 0), its kind and its number only, so what
failed can be tried again alone.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from npnet_core.errors import InputError
from tests.sentences import is_readable
from tests.watch import listing, watch

CASES = int(os.environ.get("FUZZ_CASES", 25))
SECONDS = float(os.environ.get("FUZZ_SECONDS", "inf"))
SEED = int(os.environ.get("FUZZ_SEED", 0))
HANGS = 300  # seconds after which a case counts as one that never ends; the whole run then stops with a traceback
TABLE = Path(__file__).resolve().parents[2] / "build" / "fuzz.md"

Case = Callable[[Random, Path], tuple[str, Callable[[], object]]]
_rows: dict[str, tuple[Counter, float]] = {}  # kind → (outcomes, seconds of the slowest case)


def input_error(error: Exception) -> tuple[str, str] | None:
    """(outcome, message) of a refusal that says what is wrong; None for any other error."""
    return ("refused", str(error)) if isinstance(error, InputError) else None


def fuzz(
    kind: str,
    case: Case,
    folder: Path,
    refusal: Callable = input_error,
    cases: int = CASES,
    room: str = "around/work",
) -> None:
    """Try ``cases`` cases; fails with all that went wrong, each kind of failure once.

    Args:
        kind: the row of the table.
        case: (source of randomness, folder of the case) → (what is tried, a function that tries it).
        folder: nothing may change in it, and nothing be written outside of it, ...
        refusal: an error → (outcome, message) if it is an answer to wrong input, else None.
        room: ... but in this folder below it, which is emptied after each case.
    """
    work, around = folder / room, (folder / room).parent
    work.mkdir(parents=True, exist_ok=True)
    outcomes, slowest, failures, end = Counter(), 0.0, {}, time.monotonic() + SECONDS
    for number in range(cases):
        if time.monotonic() > end:
            break
        random = Random(f"{SEED} {kind} {number}")
        what, run = case(random, work)
        before, start = listing(around), time.monotonic()
        faulthandler.dump_traceback_later(HANGS, exit=True)
        with watch(work) as seen:
            outcome, failure = _outcome(run, refusal)
        faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, time.monotonic() - start)
        after = listing(around)
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        seen += [f"changed {path}" for path in changed if Path(path).relative_to(around).parts[0] != work.name]
        if seen and failure is None:
            outcome, failure = "reached out", (seen[0].split("(")[0], "\n".join(seen))
        outcomes[outcome] += 1
        if failure is not None:
            failures.setdefault(failure[0], f"case {number} ({what}):\n{failure[1]}")
        for path in work.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _rows[kind] = outcomes, slowest
    if "FUZZ_CASES" in os.environ:
        _write_table()
    assert not failures, f"{kind}, seed {SEED}: {outcomes}\n\n" + "\n\n".join(failures.values())


def _outcome(run: Callable[[], object], refusal: Callable) -> tuple[str, tuple[str, str] | None]:
    """(outcome, None), or with what a failure has in common with others like it and its traceback."""
    try:
        run()
    except Exception as error:
        refused = refusal(error)
        if refused is None:
            places = [
                frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename
            ]
            last = places[-1]
            return "failed", (
                f"{type(error).__name__} {last.filename}:{last.lineno} {str(error)[:30]}",
                _traceback(error),
            )
        outcome, message = refused
        if outcome == "refused" and not is_readable(message):
            return "unreadable", (f"unreadable {message[-40:]!r}", f"{message[:1000]!a}\n{_traceback(error)}")
        return outcome, None
    return "done", None


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_tb(error.__traceback__)[-8:]) + f"{type(error).__name__}: {str(error)[:300]}"


def _write_table() -> None:
    names = sorted({name for outcomes, _ in _rows.values() for name in outcomes}, key=("done", "refused").__contains__)
    names.reverse()
    lines = ["| kind | cases | " + " | ".join(names) + " | slowest |", "|---" * (len(names) + 3) + "|"]
    for kind, (outcomes, slowest) in _rows.items():
        counts = " | ".join(str(outcomes[name]) for name in names)
        lines.append(f"| {kind} | {outcomes.total()} | {counts} | {slowest:.1f} s |")
    total = sum((outcomes for outcomes, _ in _rows.values()), Counter())
    lines.append(f"| all | {total.total()} | {' | '.join(str(total[name]) for name in names)} | |")
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
