"""One process's clients of a storage account: credentials, certificates, connection pools."""

from __future__ import annotations

from dataclasses import dataclass

import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, ContainerClient

from archiver.http import trust
from storage_backends.azure import credentials
from storage_backends.azure.requests import CONNECT_SECONDS, SILENCE_SECONDS, VERSION, AzureRequests
from storage_backends.azure.settings import AzureSettings
from storage_backends.errors import DestinationRefuses
from storage_backends.trusting_adapter import TrustingAdapter

_CONNECTIONS = 66  # as in s3/bucket.py


@dataclass(frozen=True, slots=True)
class Connection:
    """One process's clients, of one container."""

    control: ContainerClient
    requests: AzureRequests
    credential: credentials.Credential
    service: BlobServiceClient  # which owns the connections of `control`

    def close(self) -> None:
        self.requests.close()
        self.service.close()


def connect(settings: AzureSettings) -> Connection:
    """Make the clients, with credentials from the environment. Raises DestinationRefuses and
    UnusableCaFile."""
    credential, endpoint = credentials.find(settings.account)
    endpoint = settings.endpoint_url or endpoint
    if isinstance(credential, credentials.Identity) and not endpoint.startswith("https://"):
        raise DestinationRefuses(
            f"{settings.url.name}: a token is sent over https only: correct endpoint_url of the destination"
        )
    authorities = trust.authorities(also=trust.of_requests())
    session = requests.Session()
    adapter = TrustingAdapter(trust.context(authorities), pool_maxsize=_CONNECTIONS, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.max_redirects = 0  # the service sends none, and credentials go nowhere else
    service = BlobServiceClient(
        endpoint,
        credential=credential.of_sdk,
        api_version=VERSION,
        transport=RequestsTransport(session=session, session_owner=True),
        retry_total=0,  # the one retry policy is `Container.retry`
        permit_redirects=False,
        connection_timeout=CONNECT_SECONDS,
        read_timeout=SILENCE_SECONDS,
    )
    container_url = f"{endpoint}/{settings.container}"
    return Connection(
        service.get_container_client(settings.container),
        AzureRequests(container_url, credential, authorities),
        credential,
        service,
    )
