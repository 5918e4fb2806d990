"""Where users put the files of this pack."""

import os

import folder_paths

from ..npnet_core.errors import InputError
from ..npnet_core.hidden import hidden


def add_model_folder(name: str, *other_names: str) -> None:
    """Let ComfyUI list ``models/<name>``, what extra_model_paths.yaml has under that name, and so for other names.

    A key that ComfyUI makes anew lists every file, so the extensions are set here.
    """
    for folder in (name, *other_names):
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, folder))
        if folder != name and folder in folder_paths.folder_names_and_paths:
            for path in folder_paths.get_folder_paths(folder):
                folder_paths.add_model_folder_path(name, path)
    paths, _ = folder_paths.folder_names_and_paths[name]
    folder_paths.folder_names_and_paths[name] = (paths, {".safetensors", ".pth", ".pt", ".bin"})


def list_files(folder: str) -> list[str]:
    """What ComfyUI lists of ``models/<folder>``, without names that begin with a dot (macOS's ``._NAME``)."""
    return [name for name in folder_paths.get_filename_list(folder) if not hidden(name)]


def model_path(folder: str, name: str) -> str:
    """The path of a file that a node lists.

    Raises:
        InputError: if it is there no more; a saved workflow may name any file.
    """
    # a link may bring something else than a name
    path = folder_paths.get_full_path(folder, name) if isinstance(name, str) else None
    if path is None:
        names = ", ".join(list_files(folder)) or "none"
        raise InputError(f"There is no {name} in models/{folder}: put it there or choose one that is there ({names}).")
    return path


def fingerprint(path: str) -> str:
    """Changes when the file does, so that a node that loads it runs again."""
    status = os.stat(path)
    return f"{path}:{status.st_size}:{status.st_mtime_ns}"
