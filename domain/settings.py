"""Settings: flag > ATTIMO_* > attimo.toml > default. Secrets come only from the environment.

>>> resolve({}, {"ATTIMO_PORT": "9000"}, {"port": 8000, "shop": "moda"}).port
9000
>>> resolve({}, {}, {"prot": 1})
Traceback (most recent call last):
    ...
ValueError: attimo.toml: Object contains unknown field `prot`
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings. Paths are relative to the working directory."""

    data: str = "data"
    playbook: str = "shop"
    shop: str = "demo"
    log: str = "sqlite"
    log_sync: Literal["normal", "full"] = "normal"
    partitions: int = 64
    redis: str = ""
    host: str = "127.0.0.1"
    port: int = 8070
    public_url: str = ""
    write_key: str = "demo-browser"
    allowed_origins: tuple[str, ...] = ()
    trust_proxy: bool = False
    metrics_port: int = 9400
    retention_days: Annotated[int, Meta(ge=0, le=36_500)] = 400
    retention_internal_days: Annotated[int, Meta(ge=0, le=36_500)] = 30
    person_cache_size: int = 50_000
    pinned_model: str = ""
    rate_limit_per_key: int = 5_000
    channels: tuple[str, ...] = ("file",)
    demo: bool = False
    server_key: str = ""
    secret: str = ""


LIST_FIELDS = ("allowed_origins", "channels")
"""Comma-separated on the command line and in the environment."""

SECRET_FIELDS = ("server_key", "secret")
"""Read only from the environment, never from a file or a flag, and never shown."""


def resolve(flags: Mapping[str, Any], environment: Mapping[str, str], file: Mapping[str, Any]) -> Settings:
    """Merge the sources into settings. ValueError names the source of an invalid value."""
    for name in SECRET_FIELDS:
        if name in file or name in flags:
            raise ValueError(f"{name}: a secret is read only from the environment (ATTIMO_{name.upper()})")
    merged: dict[str, Any] = dict(file)
    try:
        msgspec.convert(merged, Settings)
    except msgspec.ValidationError as error:
        raise ValueError(f"attimo.toml: {error}") from error
    for name in Settings.__struct_fields__:
        if value := environment.get("ATTIMO_" + name.upper()):
            merged[name] = value.split(",") if name in LIST_FIELDS else value
    try:
        msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"environment ATTIMO_*: {error}") from error
    merged.update({name: value for name, value in flags.items() if value is not None})
    try:
        return msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"option: {error}") from error
