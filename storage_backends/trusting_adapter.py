"""Connections of `requests` that trust what archiver.http.trust says. For vendors' libraries that are built on it."""

from __future__ import annotations

import ssl
from typing import Any

import requests


class TrustingAdapter(requests.adapters.HTTPAdapter):
    """Connections that verify certificates by `context`, whatever the session and the environment say.

    `Session.verify` would not do: REQUESTS_CA_BUNDLE in the environment takes precedence and replaces it.
    """

    def __init__(self, context: ssl.SSLContext, **options: Any) -> None:
        self._context = context
        super().__init__(**options)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        del verify
        host, tls = super().build_connection_pool_key_attributes(request, True, cert)
        return host, tls | {"ssl_context": self._context}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Do nothing: the context has all authorities."""
