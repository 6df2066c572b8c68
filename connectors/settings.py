"""Load settings from `attimo.toml`, the environment and command-line options; create the signing secret."""

import os
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from domain.settings import Settings, resolve


def load(flags: Mapping[str, Any], file: Path = Path("attimo.toml")) -> Settings:
    """Return the effective settings. Raise ValueError with the name of the invalid file or variable."""
    found: dict[str, Any] = {}
    if file.exists():
        try:
            found = tomllib.loads(file.read_text("utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{file}: {error}") from error
    return resolve(flags, os.environ, found)


def setting_sources(flags: Mapping[str, Any], file: Path = Path("attimo.toml")) -> dict[str, str]:
    """Return the source of each setting: "option", the name of the variable, "attimo.toml" or "default"."""
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
    """Return the signing secret from the settings, else from the data folder; empty if there is none yet."""
    path = Path(settings.data) / "secret"
    return settings.secret or (path.read_text().strip() if path.exists() else "")


def with_secret(settings: Settings) -> Settings:
    """Return settings with a signing secret; if none is set, read or create `secret` in the data folder."""
    if settings.secret:
        return settings
    path = Path(settings.data) / "secret"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"secret.{secrets.token_hex(4)}")
        temporary.touch(mode=0o600)
        temporary.write_text(secrets.token_hex(32))
        try:
            os.link(temporary, path)  # atomic: the first of several processes wins
        except FileExistsError:
            pass
        temporary.unlink()
    return msgspec.structs.replace(settings, secret=path.read_text().strip())
