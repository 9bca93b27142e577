"""Where a secret has got to: a canary is put in its place and looked for."""

from __future__ import annotations

from pathlib import Path

import psutil


def files_with(canary: str, *folders: Path) -> list[Path]:
    """Files below the folders that hold the canary, in their bytes or in their names."""
    return [
        file
        for folder in folders
        for file in folder.rglob("*")
        if canary in str(file)
        or (file.is_file() and not file.is_symlink() and canary.encode() in file.read_bytes())
    ]


def arguments_with(canary: str) -> list[list[str]]:
    """Arguments of the processes that were told the canary by them: anybody here may read those."""
    found = []
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
        except psutil.Error:
            continue
        if any(canary in argument for argument in arguments):
            found.append(arguments)
    return found
