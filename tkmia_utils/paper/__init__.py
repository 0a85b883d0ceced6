"""The published numbers: read, checked, and compared with ours."""

from tkmia_utils.paper.tables import (
    CHANGES,
    MEASURES,
    METHODS,
    NAMES,
    RIVALS,
    SCHEMAS,
    SETTING,
    cell,
    check,
    fingerprint,
    folder,
    load,
    wide,
    winners,
)

__all__ = [
    "CHANGES",
    "MEASURES",
    "METHODS",
    "NAMES",
    "RIVALS",
    "SCHEMAS",
    "SETTING",
    "cell",
    "check",
    "fingerprint",
    "folder",
    "load",
    "wide",
    "winners",
]
