"""Where settings come from: `attimo.toml`, the environment, the data folder (for the signing secret)."""

import os
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from domain.settings import Settings, resolve


def load(flags: Mapping[str, Any], file: Path = Path("attimo.toml")) -> Settings:
    """The settings in force; ValueError names the file or variable that is wrong."""
    found: dict[str, Any] = {}
    if file.exists():
        try:
            found = tomllib.loads(file.read_text("utf-8"))
        except tomllib.TOMLDecodeError as wrong:
            raise ValueError(f"{file}: {wrong}") from wrong
    return resolve(flags, os.environ, found)


def came_from(flags: Mapping[str, Any], file: Path = Path("attimo.toml")) -> dict[str, str]:
    """Where each setting in force came from: "option", the name of the variable, "attimo.toml" or "default"."""
    found = tomllib.loads(file.read_text("utf-8")) if file.exists() else {}
    origins = {}
    for name in Settings.__struct_fields__:
        variable = "ATTIMO_" + name.upper()
        if flags.get(name) is not None:
            origins[name] = "option"
        elif os.environ.get(variable):
            origins[name] = variable
        else:
            origins[name] = file.name if name in found else "default"
    return origins


def secret_of(settings: Settings) -> str:
    """The signing secret: the one given, else the one kept in the data folder; empty when there is none yet."""
    path = Path(settings.data) / "secret"
    return settings.secret or (path.read_text().strip() if path.exists() else "")


def with_secret(settings: Settings) -> Settings:
    """The settings with a signing secret: the one given, else one kept in the data folder (made when missing)."""
    if settings.secret:
        return settings
    path = Path(settings.data) / "secret"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f"secret.{secrets.token_hex(4)}")
        made.touch(mode=0o600)
        made.write_text(secrets.token_hex(32))
        try:
            os.link(made, path)  # the first of several processes wins, whole
        except FileExistsError:
            pass
        made.unlink()
    return msgspec.structs.replace(settings, secret=path.read_text().strip())
