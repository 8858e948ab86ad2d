"""--debug: the settings as the variables that would give them, on stderr, in etcdctl's words."""

from __future__ import annotations

from kvstore.cli.options import DURATIONS, NAMES, Settings
from kvstore.cli.text import format_duration

HIDDEN = "***"


def variables(settings: Settings) -> list[str]:
    """Passwords are not among what it tells: where this is read, it is also kept."""
    return [f"ETCDCTL_{name.upper()}={_shown(name, settings)}" for name in sorted(NAMES)]


def _shown(name: str, settings: Settings) -> str:
    value = getattr(settings, f"{name}_s" if name in DURATIONS else name)
    if name in DURATIONS:
        return format_duration(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{','.join(value)}]"
    if name == "user":
        user, colon, password = str(value).partition(":")
        return f"{user}:{HIDDEN}" if colon and password else user
    if name in ("password", "auth_jwt_token"):
        return HIDDEN if value else ""
    return str(value)
