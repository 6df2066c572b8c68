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
    """Everything an operator can set. Paths are relative to where attimo is started."""

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
    origins: tuple[str, ...] = ()
    trust_proxy: bool = False
    metrics_port: int = 9400
    retention_days: Annotated[int, Meta(ge=0, le=36_500)] = 400
    retention_internal_days: Annotated[int, Meta(ge=0, le=36_500)] = 30
    hot_persons: int = 50_000
    pinned_model: str = ""
    rate_per_key: int = 5_000
    channels: tuple[str, ...] = ("file",)
    demo: bool = False
    server_key: str = ""
    secret: str = ""


LISTS = ("origins", "channels")
"""Written with commas on the command line and in the environment."""

SECRET_FIELDS = ("server_key", "secret")
"""Read from the environment only, never from a file or a flag, never shown."""


def resolve(flags: Mapping[str, Any], environment: Mapping[str, str], file: Mapping[str, Any]) -> Settings:
    """One value for each setting. ValueError names where a wrong value came from."""
    for name in SECRET_FIELDS:
        if name in file or name in flags:
            raise ValueError(f"{name}: a secret is read from the environment only (ATTIMO_{name.upper()})")
    merged: dict[str, Any] = dict(file)
    try:
        msgspec.convert(merged, Settings)
    except msgspec.ValidationError as wrong:
        raise ValueError(f"attimo.toml: {wrong}") from wrong
    for name in Settings.__struct_fields__:
        if value := environment.get("ATTIMO_" + name.upper()):
            merged[name] = value.split(",") if name in LISTS else value
    try:
        msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as wrong:
        raise ValueError(f"environment ATTIMO_*: {wrong}") from wrong
    merged.update({name: value for name, value in flags.items() if value is not None})
    try:
        return msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as wrong:
        raise ValueError(f"option: {wrong}") from wrong
