"""One process's clients of Google Cloud Storage: credentials, certificates, connection pools."""

from __future__ import annotations

import os
from dataclasses import dataclass

from google.cloud.storage import Client

from archiver.http import trust
from storage_backends.errors import (
    AccessDenied,
)
from storage_backends.gcs.requests import GcsRequests
from storage_backends.trusting_adapter import TrustingAdapter

_CONNECTIONS = 66  # as in s3/bucket.py


@dataclass(frozen=True, slots=True)
class Connection:
    """One process's clients."""

    control: Client
    requests: GcsRequests


def connect() -> Connection:
    """Make the clients, with credentials as the library finds them, and no project, which objects do not need."""
    options = {}
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator:  # `host:port` as well, as Google's other libraries take it
        options["api_endpoint"] = (emulator if "://" in emulator else f"http://{emulator}").rstrip("/")
    try:
        client = Client(project=None, client_options=options)
    except ValueError as error:
        # not a credentials file, or one for another cloud of Google than googleapis.com
        raise AccessDenied(f"the credentials cannot be used with Google Cloud Storage: {error}") from None
    # else a thread requests the bucket's metadata for traces, with a permission that we do not need
    client._bucket_metadata_cache = None  # noqa: SLF001 # the public switch is a variable for the whole process
    authorities = trust.authorities(also=trust.of_requests())
    context = trust.context(authorities)
    adapter = TrustingAdapter(context, pool_maxsize=_CONNECTIONS, max_retries=0)
    client._http.mount("https://", adapter)  # noqa: SLF001 # the library's documented way to set the pool
    client._http.mount("http://", adapter)  # noqa: SLF001
    tokens = client._http._auth_request.session  # noqa: SLF001 # the session that fetches tokens
    tokens.mount("https://", TrustingAdapter(context, max_retries=3))
    client._http.max_redirects = 0  # noqa: SLF001 # the API sends none, and bytes go nowhere else
    return Connection(client, GcsRequests(client, authorities))
