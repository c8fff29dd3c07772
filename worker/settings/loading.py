"""Read the settings from the environment and `.env`; explain each one that cannot be used."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from archiver.http import trust
from storage_backends.destination_url import parse_destination
from worker.errors import SettingsError
from worker.settings.model import Settings, variable, variables

_OUR_NAMES = re.compile(r"(ARCHIVER|HMS)_", re.IGNORECASE)
_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
"""What Kubernetes puts into each container for each service of its namespace, beside `<service>_PORT`."""
_SERVICE_PORT = re.compile(r"(ARCHIVER|HMS|FLOWER)_(.+_)?PORT")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+:\d+", re.IGNORECASE)
"""A service that is called `archiver-flower` or `flower` sets ARCHIVER_FLOWER_PORT or FLOWER_PORT to such a value."""
_FROM_FILE = "_FROM_DOTENV"
"""Names of the variables in the environment that came from `.env`: when it is read again, its new values win."""
_TYPO = 0.75  # difflib's ratio, without the prefix, above which a name is taken for a misspelt one of ours


def load_settings(env_file: Path = Path(".env")) -> Settings:
    """Read and check the settings of this process. Idempotent. Raises SettingsError.

    Changes `os.environ`: adds what else `.env` holds (AWS_*, GOOGLE_APPLICATION_CREDENTIALS, AZURE_*, proxies) unless
    it is set already, because the cloud SDKs look nowhere else, and ARCHIVER_CA_FILE, for the storage backends; removes
    the service links that Kubernetes injects under the name of a setting of ours or of Flower's.
    """
    _remove_service_links()
    try:
        in_file = dotenv_values(env_file, encoding="utf-8-sig") if env_file.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{env_file} cannot be read: {reason}") from None
    wrong, odd = _unknown({**in_file, **os.environ})
    try:
        settings = Settings(_env_file=env_file if in_file else None)
    except ValidationError as error:
        wrong += _explained(error)
    if wrong:
        raise SettingsError(
            f"The settings (environment, or {env_file}) cannot be used:\n"
            + "\n".join(f"  {line}" for line in wrong)
            + "\n.env.example explains each."
        )
    settings._warnings = tuple(odd)  # noqa: SLF001  (its own module)
    if in_file:
        _pass_on({name: value for name, value in in_file.items() if value and not _OUR_NAMES.match(name)})
    if settings.ca_file is not None:
        os.environ[trust.SETTING] = str(settings.ca_file)  # destinations look there, and child processes
    _check_authorities(settings)
    return settings


def _pass_on(variables: Mapping[str, str]) -> None:
    """Set them in the environment unless it has them already from elsewhere; replace or remove what an earlier call, in
    this process or its parent, set from the file."""
    ours = set(filter(None, os.environ.get(_FROM_FILE, "").split(",")))
    for name in ours - variables.keys():
        os.environ.pop(name, None)
    ours &= variables.keys()
    for name, value in variables.items():
        if name in ours or name not in os.environ:
            os.environ[name] = value
            ours.add(name)
    os.environ[_FROM_FILE] = ",".join(sorted(ours))


def _remove_service_links() -> None:
    """Remove variables such as FLOWER_PORT when they hold a service's address instead of a number."""
    for name, value in list(os.environ.items()):
        if _SERVICE_PORT.fullmatch(name) and _SERVICE_ADDRESS.fullmatch(value):
            del os.environ[name]


def _check_authorities(settings: Settings) -> None:
    """Raises SettingsError for a file of authorities that would be used and cannot be."""
    schemes = {parse_destination(text).scheme for text in settings.destinations}
    also: dict[str, str | None] = {}
    if "s3" in schemes:
        also |= trust.of_aws(os.environ.get("AWS_CA_BUNDLE"))
    if schemes & {"gs", "az"}:
        also |= trust.of_requests()
    try:
        trust.authorities(settings.ca_file, also=also)
    except trust.UnusableCaFile as error:
        raise SettingsError(str(error)) from None


def _unknown(given: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Errors and warnings for names that look like ours and are not: misspelt ones are errors (ARCHIVER_DESTINATION
    would copy everything to the wrong place), others are warnings (a compose file or an older version may use them).
    """
    known = {_OUR_NAMES.sub("", name, count=1): name for name in variables()}
    wrong, odd = [], []
    ours = {name.upper() for name in given if _OUR_NAMES.match(name)} - set(known.values())
    for name in sorted(name for name in ours if not _SERVICE_LINK.fullmatch(name)):
        bare = _OUR_NAMES.sub("", name, count=1)
        close = difflib.get_close_matches(bare, known, n=1, cutoff=_TYPO)
        if close:
            wrong.append(f"{name}: there is no such setting; did you mean {known[close[0]]}?")
        else:
            [nearest] = difflib.get_close_matches(name, known.values(), n=1, cutoff=0)
            odd.append(f"{name} is set, and no setting of this version; the nearest is {nearest}")
    return wrong, odd


def _explained(error: ValidationError) -> list[str]:
    lines: list[str] = []
    names = variables()
    for problem in error.errors(include_url=False, include_input=False):
        ours = problem.get("ctx", {}).get("error")  # says itself what would be right
        if not problem["loc"]:
            lines += str(ours).splitlines()
            continue
        place = str(problem["loc"][0])
        name = place if place in names else variable(place)
        if ours is not None:
            lines.append(f"{name}: {ours}")
        else:
            # pydantic's own words for it say what the parser did
            expected = "a size such as 256MiB" if problem["type"] == "byte_size" else problem["msg"]
            what = expected.removeprefix("Input should be ").removeprefix("Value should be ")
            lines.append(f"{name}: must be {what}. It is: {Settings.model_fields[names[name]].description}")
    return lines
