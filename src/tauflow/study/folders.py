"""Folders for results: new ones only, so that nothing already saved is lost."""

from __future__ import annotations

import os
from pathlib import Path

from tauflow.run import RunError
from tauflow.run.files import as_path


def make_new(folder: str | Path) -> Path:
    """Make a folder that does not exist yet, and the folders above it.

    Raises:
        RunError: If it exists or cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     make_new(f"{parent}/study").name
        'study'
    """
    folder = as_path(folder)
    if not _made(folder):
        raise RunError(
            f"{folder} exists; choose another folder (--out), or go on with the study in it (--resume {folder})."
        )
    return folder


def first_free(parent: str | Path, name: str) -> Path:
    """Make the first of parent/name-1, parent/name-2, ... that is free; of two callers each gets its own.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     [first_free(parent, "mante").name for _ in range(2)]
        ['mante-1', 'mante-2']
    """
    number = 1
    while not _made(Path(parent) / f"{name}-{number}"):
        number += 1
    return Path(parent) / f"{name}-{number}"


def _made(folder: Path) -> bool:
    """Make the folder unless something of its name exists; whether it was made."""
    if os.path.lexists(folder):
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.mkdir(folder)
    except OSError as error:
        if os.path.lexists(folder):  # somebody else made it in between
            return False
        reason = error.strerror or type(error).__name__
        raise RunError(f"{folder} cannot be made ({reason}); choose a folder that can be written.") from error
    return True
