"""Find the credentials of a storage account in the environment, and authorize requests by them.

In this order, by the names that the `az` command line documents
(https://learn.microsoft.com/cli/azure/azure-cli-configuration):

1. AZURE_STORAGE_CONNECTION_STRING, if it is of this account
2. AZURE_STORAGE_SAS_TOKEN, unless AZURE_STORAGE_ACCOUNT names another account
3. AZURE_STORAGE_KEY, likewise
4. azure-identity's DefaultAzureCredential: a service principal in AZURE_CLIENT_ID, AZURE_TENANT_ID and
   AZURE_CLIENT_SECRET; workload identity; a managed identity; a login of `az`

The first three may end in `_ACCOUNT` in upper case (AZURE_STORAGE_KEY_MYACCOUNT), which wins: two destinations may be
in two accounts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.utils import parse_connection_string

from archiver.http.waiting import blocking
from storage_backends.errors import CredentialsMissing

_SCOPE = "https://storage.azure.com/.default"
_RENEW_BEFORE_SECONDS = 300
_DEFAULT_SUFFIX = "core.windows.net"
# of a request's headers, in the order in which they are signed
_SIGNED = (
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date"),
    *("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
)


class Credential(Protocol):
    """What authorizes requests. `of_sdk` is for the clients of azure-storage-blob."""

    @property
    def of_sdk(self) -> Any: ...

    async def ready(self) -> None:
        """Obtain what `authorize` needs. May send a request of its own."""
        ...

    def authorize(
        self, method: str, url: str, headers: Mapping[str, str], length_bytes: int
    ) -> tuple[str, dict[str, str]]:
        """Return URL and headers of the request, authorized. Called when it is sent: signatures have an age."""
        ...


class SharedKey:
    """The key of the account. https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key"""

    def __init__(self, account: str, key: str) -> None:
        try:
            self._key = base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            raise CredentialsMissing(
                f"the key of the storage account {account} is not base64: copy it again from the portal, or from "
                "`az storage account keys list`"
            ) from None
        self._account = account
        self.of_sdk = AzureNamedKeyCredential(account, key)

    async def ready(self) -> None:
        """Do nothing: a key is always ready."""

    def authorize(
        self, method: str, url: str, headers: Mapping[str, str], length_bytes: int
    ) -> tuple[str, dict[str, str]]:
        sent = {**headers, "x-ms-date": formatdate(usegmt=True)}
        lower = {name.lower(): value for name, value in sent.items()}
        lower["content-length"] = str(length_bytes) if length_bytes else ""
        split = urlsplit(url)
        # the service compares names as if there were no hyphens
        ours = sorted((n for n in lower if n.startswith("x-ms-")), key=lambda name: name.replace("-", ""))
        query = sorted(
            (name.lower(), value) for name, value in parse_qsl(split.query, keep_blank_values=True)
        )
        lines = [
            method,
            *(lower.get(name, "") for name in _SIGNED),
            *(f"{name}:{lower[name]}" for name in ours),
            f"/{self._account}{split.path}",
            *(f"{name}:{value}" for name, value in query),
        ]
        digest = hmac.digest(self._key, "\n".join(lines).encode(), hashlib.sha256)
        signature = base64.b64encode(digest).decode()
        return url, {**sent, "Authorization": f"SharedKey {self._account}:{signature}"}


class SasToken:
    """A shared access signature."""

    def __init__(self, token: str) -> None:
        self._token = token.strip().lstrip("?")
        self.of_sdk = AzureSasCredential(self._token)

    async def ready(self) -> None:
        """Do nothing: a signature is always ready."""

    def authorize(
        self,
        method: str,  # noqa: ARG002 # not signed
        url: str,
        headers: Mapping[str, str],
        length_bytes: int,  # noqa: ARG002
    ) -> tuple[str, dict[str, str]]:
        return f"{url}{'&' if '?' in url else '?'}{self._token}", dict(headers)


class Identity:
    """Tokens of Microsoft Entra ID. `credential`: one of azure-identity."""

    def __init__(self, credential: Any) -> None:
        self.of_sdk = credential
        self._token, self._expires_at = "", 0.0

    async def ready(self) -> None:
        if time.time() > self._expires_at - _RENEW_BEFORE_SECONDS:
            got = await blocking(lambda: self.of_sdk.get_token(_SCOPE))
            self._token, self._expires_at = got.token, got.expires_on

    def authorize(
        self,
        method: str,  # noqa: ARG002 # not signed
        url: str,
        headers: Mapping[str, str],
        length_bytes: int,  # noqa: ARG002
    ) -> tuple[str, dict[str, str]]:
        return url, {**headers, "Authorization": f"Bearer {self._token}"}


def find(account: str, environ: Mapping[str, str] | None = None) -> tuple[Credential, str]:
    """Return the credentials of `account`, and the URL of its blob service. Raises CredentialsMissing."""
    environ = os.environ if environ is None else environ

    def named(name: str) -> str:
        own = environ.get(f"{name}_{account.upper()}", "").strip()
        if own or environ.get("AZURE_STORAGE_ACCOUNT", account).strip() not in ("", account):
            return own
        return environ.get(name, "").strip()

    parts = _connection_string(account, environ)
    suffix = parts.get("endpointsuffix", _DEFAULT_SUFFIX)
    scheme = parts.get("defaultendpointsprotocol", "https")
    endpoint = parts.get("blobendpoint", f"{scheme}://{account}.blob.{suffix}").rstrip("/")
    if sas := parts.get("sharedaccesssignature") or named("AZURE_STORAGE_SAS_TOKEN"):
        return SasToken(sas), endpoint
    if key := parts.get("accountkey") or named("AZURE_STORAGE_KEY"):
        return SharedKey(account, key), endpoint
    return Identity(_default_credential()), endpoint


def _connection_string(account: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the parts of the connection string by their names in lower case; none where it is of another account."""
    for name in (f"AZURE_STORAGE_CONNECTION_STRING_{account.upper()}", "AZURE_STORAGE_CONNECTION_STRING"):
        text = environ.get(name, "").strip()
        if not text:
            continue
        try:
            parts = parse_connection_string(text)
        except ValueError:
            raise CredentialsMissing(
                f"{name} is not a connection string, as the portal shows it under Access keys"
            ) from None
        its_own = (
            parts.get("accountname")
            or (urlsplit(parts.get("blobendpoint", "")).hostname or "").partition(".")[0]
        )
        if its_own == account:
            return parts
    return {}


def _default_credential() -> Any:
    # not needed with a key or a signature, and half a second to import
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(
        exclude_interactive_browser_credential=True,
        exclude_visual_studio_code_credential=True,
        exclude_developer_cli_credential=True,
        exclude_powershell_credential=True,
    )
