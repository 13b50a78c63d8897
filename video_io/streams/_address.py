"""Addresses of streams as they may be shown: without what lets a stranger in. The one place where that is decided."""

from __future__ import annotations

import re

HIDDEN = "***"
_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_VALUE = re.compile(r"=[^&;#\s'\"]*")


def shown(source: str) -> str:
    """The source without user, password, and the values of its query and fragment; paths stay as they are."""
    if "://" not in source:
        return source
    source = _USER.sub(f"{HIDDEN}@", source)
    address, mark, query = _split(source)
    if not mark:
        return address
    # A query without names is a token itself.
    return address + mark + (_VALUE.sub(f"={HIDDEN}", query) if "=" in query else HIDDEN)


def redacted(text: str, source: str) -> str:
    """A text, such as a library's error message, in which the source's address and its secrets are hidden."""
    if "://" not in source:
        return text
    text = text.replace(source, shown(source))
    user = _USER.search(source)
    _, _, query = _split(source)
    values = [part.split("=", 1)[-1] for part in re.split(r"[&;#]", query)]
    secrets = [*values, *(re.split(r"[:@]", user.group()) if user else [])]
    for secret in sorted({s for s in secrets if len(s) > 3}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _split(source: str) -> tuple[str, str, str]:
    found = re.search(r"[?#]", source)
    return (source, "", "") if found is None else (source[: found.start()], found.group(), source[found.end() :])
