"""Files that containers read as uid 1000 and the user who made them as a member of a group."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from include.platform.compose.problems import ComposeError, Problem

SERVICE_ID = 1000
"""Uid and gid of every service's processes."""

SHARED, PUBLIC, PRIVATE = 0o640, 0o644, 0o600


@dataclass(frozen=True)
class User:
    """Who called: files are readable by their group, and what no container needs is theirs alone."""

    uid: int
    gid: int


def write(path: Path, data: bytes, mode: int, uid: int, gid: int, replace: bool = False) -> None:
    """Make ``path`` whole or not at all. Raises :class:`ComposeError`; also, without ``replace``, when something is there."""
    name = ""
    try:
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            _give(fd, path, mode, uid, gid)
            os.fsync(fd)
        (os.replace if replace else os.link)(name, path)
    except OSError as error:
        raise ComposeError(
            f"{shown(path)} cannot be written: {error.strerror}; see what is there: ls -ld {shown(path)}"
        ) from None
    finally:
        if name:
            Path(name).unlink(missing_ok=True)


def set_right(path: Path, mode: int, uid: int, gid: int) -> bool:
    """Whether owner and mode of ``path`` had to be set. Raises :class:`ComposeError` when that is not allowed."""
    found = path.stat()
    if (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, uid, gid):
        return False
    _give(path, path, mode, uid, gid)
    return True


def _give(what: int | Path, path: Path, mode: int, uid: int, gid: int) -> None:
    try:
        os.chown(what, uid, gid)
        os.chmod(what, mode)
    except PermissionError:
        raise ComposeError(
            f"{shown(path)} cannot be given to uid {uid}, gid {gid}: use make, which runs this in a container"
        ) from None


def shown(path: Path) -> str:
    """``docker/secrets/trino``: as the user sees it, wherever the folder is mounted here."""
    return str(Path("docker", *path.parts[-2:]))


def readable_by_services(path: Path) -> bool:
    """Whether uid 1000 may read ``path``, by its owner and mode."""
    found = path.stat()
    if found.st_uid == SERVICE_ID:
        return bool(found.st_mode & stat.S_IRUSR)
    if found.st_gid == SERVICE_ID:
        return bool(found.st_mode & stat.S_IRGRP)
    return bool(found.st_mode & stat.S_IROTH)


def unusable(path: Path, make: str) -> Problem | None:
    """Why a service cannot use ``path``, or None. ``make``: the goal that makes it."""
    name = shown(path)
    if path.is_symlink():
        return Problem(f"{name} is a link, which containers cannot follow", "put the file itself in its place")
    if path.is_dir():
        return Problem(f"{name} is a folder, not a file", f"rmdir {name}, then make {make}")
    try:
        empty = not path.read_bytes().strip()
    except FileNotFoundError:
        return Problem(f"{name} is missing", f"make {make}")
    except OSError as error:
        return Problem(
            f"{name} cannot be read: {error.strerror}", f"ls -l {name}, and correct its mode; make {make} sets it to 0640"
        )
    if empty:
        return Problem(f"{name} is empty", f"write the value into it, or remove the file and make {make}")
    if not readable_by_services(path):
        found = path.stat()
        owner = f"uid {found.st_uid}, gid {found.st_gid}, mode {stat.S_IMODE(found.st_mode):04o}"
        return Problem(f"{name} cannot be read by uid {SERVICE_ID}, which all services run as ({owner})", f"make {make}")
    return None


def missing(paths: list[Path], make: str) -> list[Problem]:
    """One problem for all that are missing."""
    names = [path.name for path in paths if not (path.exists() or path.is_symlink())]
    if not names:
        return []
    return [Problem(f"docker/{paths[0].parent.name}: missing: {', '.join(names)}", f"make {make}")]
