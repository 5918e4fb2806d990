"""A frozen dataclass is a command's options: flags, help and TOML follow from its fields."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import types
import typing
from pathlib import Path

from npnet_core.errors import InputError
from trainer.data.paths import expanded
from trainer.data.toml import read_toml, write_toml

T = typing.TypeVar("T")


def option(default, help: str, path: bool = False):
    """A field that is a flag: ``--field-name``; ``path`` where a text may be one, as a Path is."""
    return dataclasses.field(default=default, metadata={"help": help, "path": path})


def required(help: str, path: bool = False):
    """A field that is a flag and has to be given, by flag or in the config file; ``path`` as in :func:`option`."""
    return dataclasses.field(default=None, metadata={"help": help, "path": path, "required": True})


def argument(help: str):
    """A field that is given by its position."""
    return dataclasses.field(metadata={"help": help, "positional": True})


def parse(options: type[T], command: str, argv: list[str]) -> T:
    """Options from the command line: defaults, then ``--config FILE.toml``, then flags.

    Args:
        options: a frozen dataclass whose fields are made by the functions above; types are bool, int, float, str, Path,
            ``Literal``, ``X | None`` and ``tuple[X, ...]``. Its docstring is the help: a sentence, then examples.
        command: its name, as in ``npnet NAME``.
        argv: what follows the name.

    In a path ``~`` is the home folder, wherever it comes from.

    Raises:
        InputError: for a config file that does not fit, or what is no path.
        SystemExit: 0 after ``--help``, 2 for flags that do not fit.
    """
    hints = typing.get_type_hints(options)
    parser = argparse.ArgumentParser(
        f"npnet {command}",
        description=inspect.cleandoc(options.__doc__),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # what was not given must not hide the config file's value
        allow_abbrev=False,
    )
    fields = {field.name: field for field in dataclasses.fields(options)}
    for name, field in fields.items():
        if field.metadata.get("positional"):
            parser.add_argument(name, metavar=name.upper(), help=field.metadata["help"], type=_kind(hints[name])[0])
        else:
            parser.add_argument(f"--{name.replace('_', '-')}", **_flag(hints[name], field))
    if any(not field.metadata.get("positional") for field in fields.values()):
        parser.add_argument("--config", type=Path, metavar="FILE.toml", help="options from a file; flags go first")

    given = vars(parser.parse_args(argv))
    config = given.pop("config", None)
    if config is not None:
        given = {**_read_config(_expanded(config), fields, hints), **given}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    paths = {name for name in given if fields[name].metadata.get("path") or _kind(hints[name])[0] is Path}
    given = {name: _expanded(value) if name in paths else value for name, value in given.items()}
    missing = [name for name, field in fields.items() if field.metadata.get("required") and name not in given]
    if missing:
        parser.error(f"missing: {', '.join('--' + name.replace('_', '-') for name in missing)}")
    return options(**given)


def save_config(options, path: Path) -> None:
    """Write the resolved options as a TOML file that ``--config`` reads back; None values are left out."""
    named = [field.name for field in dataclasses.fields(options) if not field.metadata.get("positional")]
    write_toml({name: getattr(options, name) for name in named}, path)


def _expanded(value):
    """A path, text or tuple of them, see :func:`trainer.data.paths.expanded`."""
    if isinstance(value, tuple):
        return tuple(map(_expanded, value))
    return type(value)(expanded(str(value)))


def _kind(hint) -> tuple[type, bool, tuple | None]:
    """(type of one value, whether there are several, choices) of a field's type hint."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):  # X | None
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        kind, _, choices = _kind(typing.get_args(hint)[0])
        return kind, True, choices
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        return type(choices[0]), False, choices
    return hint, False, None


def _flag(hint, field: dataclasses.Field) -> dict:
    kind, several, choices = _kind(hint)
    default = field.default
    text = field.metadata["help"].replace("%", "%%")
    if field.metadata.get("required"):
        text += " (required)"
    if default is not None and default != () and kind is not bool:
        text += f" (default: {' '.join(map(str, default)) if several else default})"
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction, "help": text}
    metavar = None if choices else "N" if kind is int else field.name.rpartition("_")[2].upper()
    return {"type": kind, "choices": choices, "nargs": "+" if several else None, "help": text, "metavar": metavar}


def _read_config(path: Path, fields: dict, hints: dict) -> dict:
    result = {}
    for name, value in read_toml(path).items():
        key = name.replace("-", "_")
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the options are {', '.join(fields)}."
            raise InputError(f"{path} has the unknown entry {name}: {hint}")
        kind, several, choices = _kind(hints[key])
        given = value if several and isinstance(value, list) else [value]
        accepted = (str,) if kind is Path else (int, float) if kind is float else (kind,)
        if any(type(v) not in accepted for v in given) or (choices and not set(given) <= set(choices)):
            a = "an" if kind is int else "a"
            expected = f"one of {', '.join(map(str, choices))}" if choices else f"{a} {kind.__name__}"
            raise InputError(f"{path} has {name} = {value!r}: give {expected}{' or a list of them' * several}.")
        try:
            given = [kind(v) for v in given]
        except OverflowError as error:
            raise InputError(f"{path} has {name} = {value!r}, more than a float can be: give less.") from error
        result[key] = given if several else given[0]
    return result
