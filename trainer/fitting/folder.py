"""One folder, one run: its settings are written down in OUT/fit.toml and compared."""

from __future__ import annotations

import dataclasses

from npnet_core.errors import InputError
from npnet_core.hidden import hidden
from trainer.data.toml import as_toml, read_toml, write_toml
from trainer.fitting.checkpoints import checkpoints
from trainer.fitting.settings import MAY_CHANGE, Settings

CONFIG = "fit.toml"


def check_folder(settings: Settings) -> None:
    """Raise InputError if OUT holds something else than a run with these settings."""
    out = settings.out
    config = out / CONFIG
    if not config.exists():
        if out.exists() and (not out.is_dir() or any(not hidden(path.name) for path in out.iterdir())):
            raise InputError(f"{out} holds other files and no run: choose a new or empty folder as --out.")
        return
    if not checkpoints(out / "checkpoints"):
        return
    ours = {name: as_toml(value) for name, value in settings.flat().items() if name not in MAY_CHANGE}
    theirs = {name: value for name, value in (defaults(settings) | read_toml(config)).items() if name not in MAY_CHANGE}
    differing = [
        f"{name} {theirs.get(name)} there and {ours.get(name)} here"
        for name in ours | theirs
        if theirs.get(name) != ours.get(name)
    ]
    if differing:
        raise InputError(f"{out} holds another run ({'; '.join(differing)}): choose another --out, or go on as it was.")


def defaults(settings: Settings) -> dict[str, object]:
    """Of every setting, as in a file: an earlier version's does not have those that came later."""
    fields = (field for part in settings.parts for field in dataclasses.fields(part))
    return {field.name: as_toml(field.default) for field in fields if field.default is not dataclasses.MISSING}


def save_settings(settings: Settings) -> None:
    """Write OUT/fit.toml, which ``npnet fit --config`` reads too."""
    settings.out.mkdir(parents=True, exist_ok=True)
    write_toml(settings.flat(), settings.out / CONFIG)
