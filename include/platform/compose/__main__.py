"""``python -m include.platform.compose``: see :mod:`include.platform.compose`. Exit code: 0 well, 1 problems, 2 wrong usage."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from include.platform.compose import certificates, dotenv, external, preflight, secrets
from include.platform.compose.facts import Facts
from include.platform.compose.files import User
from include.platform.compose.model import Compose
from include.platform.compose.problems import ComposeError, Problem


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m include.platform.compose", description="The Compose platform before it starts."
    )
    parser.add_argument("--folder", type=Path, default=Path("docker"), help="the folder of compose.yaml")
    parser.add_argument(
        "--user", default=f"{os.getuid()}:{os.getgid()}", help="uid:gid of the caller, to whom files are readable"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("secrets", help="make the missing secrets").add_argument("rotate", nargs="*", help="made anew")
    commands.add_parser("certificates", help="make the missing certificates").add_argument(
        "renew", nargs="*", help="1, ca, names"
    )
    commands.add_parser("check", help="what keeps the platform from starting; facts of the host on standard input")
    commands.add_parser("external", help="print external.yaml").add_argument("told", help="the value of SHUDL_EXTERNAL")
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            return _check(options.folder)
        compose = Compose.read(options.folder / "compose.yaml")
        if options.command == "external":
            print(external.render(compose, options.told), end="")
            return 0
        user = User(*map(int, options.user.split(":")))
        if options.command == "secrets":
            return _secrets(options.folder, compose, user, options.rotate)
        return _certificates(options.folder, compose, user, options.renew)
    except ComposeError as error:
        print(error, file=sys.stderr)
        return 1


def _check(folder: Path) -> int:
    found, soon = preflight.check(folder, Facts(sys.stdin))
    _tell("soon", soon, sys.stdout)
    if found:
        _tell("FAIL", found, sys.stderr)
        return 1
    print("Docker, settings, secrets, certificates, memory, ports and images: nothing keeps the platform from starting")
    return 0


def _secrets(folder: Path, compose: Compose, user: User, rotate: list[str]) -> int:
    done = secrets.make(folder / "secrets", compose, user, rotate)
    _name("made", done.made)
    _name("made anew", done.rotated)
    _name("kept, now readable by services", done.opened)
    for line in secrets.after_rotation(compose, done.rotated):
        print(f"    {line}")
    _tell("FAIL", done.problems, sys.stderr)
    print(f"docker/secrets: {len(done.made) + len(done.rotated)} made, {len(done.kept)} kept")
    return 1 if done.problems else 0


def _certificates(folder: Path, compose: Compose, user: User, renew: list[str]) -> int:
    names = preflight.public_names(dotenv.effective(folder, os.environ))
    done = certificates.make(folder / "certificates", compose, user, names, renew)
    _name("made", done.made)
    _name("renewed", done.renewed)
    services = dict.fromkeys(service for name in done.renewed for service in compose.users(f"./certificates/{name}.crt"))
    if services:
        print(f"    restart what uses them, where it runs: docker/platform.sh compose restart {' '.join(services)}")
    _tell("soon", done.soon, sys.stdout)
    _tell("FAIL", done.problems, sys.stderr)
    print(f"docker/certificates: {len(done.made) + len(done.renewed)} made, {len(done.kept)} kept")
    return 1 if done.problems else 0


def _name(what: str, names: list[str]) -> None:
    if names:
        print(f"{what}: {' '.join(names)}")


def _tell(word: str, problems: Iterable[Problem], stream) -> None:
    for problem in problems:
        print(f"{word}  {problem}", file=stream)


if __name__ == "__main__":
    sys.exit(main())
