"""Licences that ask for consent, and where it was given.

Most weights may be used for anything. Those whose licence forbids a use, or binds whatever is derived from them, are
read only after somebody has agreed: by the option ``accept_licences``, or in the environment. That is asked for once;
it is remembered beside the cache, and written into every checkpoint that descends from such weights.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from eyas.data.cache import cache_root
from eyas.files import write_atomic
from eyas.log import LOGGER

VARIABLE = "EYAS_ACCEPT_LICENCES"  # names, separated by commas
FILE = "licences.json"
SPECIAL: Mapping[str, str] = MappingProxyType(
    {
        "CC-BY-NC-4.0": "non-commercial use only, and so for all that is trained from them",
        "DINOv3 License": "a licence of its own, that forbids some uses and goes with all that is trained from them "
        "(ai.meta.com/resources/models-and-libraries/dinov3-license)",
    }
)
"""Licence -> what it asks for, in a sentence's part."""


class LicenceError(ValueError):
    """Nobody has agreed to a licence."""


def consent(licence: str, what: str, accepted: Collection[str] = (), cache_dir: str | Path | None = None) -> str:
    """Return how a licence was agreed to; "" for one that asks for no consent.

    Args:
        licence: its name.
        what: is under it, for messages.
        accepted: names of licences that the run agrees to, in any case.
        cache_dir: where consent is remembered; None for the usual cache.

    Raises:
        LicenceError: nobody has agreed; says how to.
    """
    licence, terms = asks_for(licence)
    if not terms:
        return ""
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    file = cache_root(cache_dir) / FILE
    remembered = _remembered(file)
    if _names(licence, accepted):
        said = f"accepted on {day} by accept_licences"
    elif _names(licence, os.environ.get(VARIABLE, "").split(",")):
        said = f"accepted on {day} by {VARIABLE}"
    elif licence in remembered:
        return remembered[licence]
    else:
        raise LicenceError(
            f"{what}: their licence is {licence}: {terms}. If that suits you, say so once: "
            f'accept_licences=["{licence}"], or {VARIABLE}="{licence}" in the environment.'
        )
    LOGGER.info("%s: %s, %s; %s", what, licence, terms, said)
    if licence not in remembered:
        _remember(file, remembered | {licence: said})
    return said


def asks_for(licence: str) -> tuple[str, str]:
    """Return the usual name of a licence and what it asks for; "" for nothing.

    Licences without commercial use that are not in the table are known by the NC in their name.
    """
    for name, terms in SPECIAL.items():
        if _plain(name) == _plain(licence):
            return name, terms
    return licence, SPECIAL["CC-BY-NC-4.0"] if "nc" in _plain(licence).split() else ""


def _plain(licence: str) -> str:
    return licence.strip().lower().replace("-", " ")


def _names(licence: str, accepted: Collection[str]) -> bool:
    return _plain(licence) in map(_plain, accepted)


def _remembered(file: Path) -> dict[str, str]:
    """Return how each licence was agreed to earlier on; nothing if that cannot be read."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}


def _remember(file: Path, known: Mapping[str, str]) -> None:
    """Write down who agreed to what; where nothing can be written, the next run asks again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(known, indent=2).encode())
    except OSError as error:
        LOGGER.warning("Warning: consent to a licence could not be remembered in %s: %s", file, error)
