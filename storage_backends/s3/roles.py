"""Roles that a destination assumes at AWS's Security Token Service: AssumeRole, and AssumeRoleWithWebIdentity.

boto3 fetches the temporary credentials at first use and renews them before they expire. The address of the service is
the SDK's: that of the region, or AWS_ENDPOINT_URL_STS. A web identity is a file with an OIDC token, as Kubernetes
mounts one; it is read again for each renewal.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    AssumeRoleWithWebIdentityCredentialFetcher,
    CredentialProvider,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError
from botocore.utils import FileWebIdentityTokenLoader

if TYPE_CHECKING:
    from botocore.session import Session

    from storage_backends.s3.settings import S3Settings

_TIMEOUTS = Config(connect_timeout=10, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})


def as_role(session: Session, role_arn: str, settings: S3Settings) -> None:
    """Let the clients of `session` have the credentials of `role_arn`. Sends no request."""
    resolver = session.get_component("credential_provider")
    resolver.providers = [_Role(session, list(resolver.providers), role_arn, settings)]


class _Role(CredentialProvider):
    METHOD = "destination-role"

    def __init__(
        self, session: Session, others: list[CredentialProvider], role_arn: str, settings: S3Settings
    ) -> None:
        super().__init__(session)
        self._own = others
        self._role_arn = role_arn
        self._settings = settings

    def load(self) -> DeferredRefreshableCredentials:
        roles = self._settings.roles
        region = self._settings.region or self.session.get_config_variable("region") or "us-east-1"
        create = partial(self.session.create_client, region_name=region, config=_TIMEOUTS)
        named = {"RoleSessionName": roles.session_name}
        fetcher: Any
        if roles.web_identity_file is not None:
            token = _TokenFile(roles.web_identity_file)
            fetcher = AssumeRoleWithWebIdentityCredentialFetcher(create, token, self._role_arn, named)
        else:
            if roles.external_id is not None:
                named["ExternalId"] = roles.external_id
            fetcher = AssumeRoleCredentialFetcher(create, self._found(), self._role_arn, named)
        return DeferredRefreshableCredentials(fetcher.fetch_credentials, self.METHOD)

    def _found(self) -> Any:
        """Return the credentials that the SDK finds, which assume the role. Raises NoCredentialsError."""
        for provider in self._own:
            found = provider.load()
            if found is not None:
                return found
        raise NoCredentialsError


class _TokenFile:
    """Raises botocore's error, which is translated, for a file that cannot be read."""

    def __init__(self, path: str) -> None:
        self._load = FileWebIdentityTokenLoader(path)

    def __call__(self) -> str:
        try:
            return str(self._load())
        except (OSError, UnicodeDecodeError) as error:
            raise CredentialRetrievalError(
                provider=_Role.METHOD, error_msg=f"the web identity file: {type(error).__name__}"
            ) from None
