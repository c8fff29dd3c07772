"""Certificate verification of a `rediss://` server, for the ledger and for Celery's broker."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from archiver.http import trust


def tls_options(url: str, authorities: Path | None = None) -> Mapping[str, Any]:
    """Return the TLS arguments of a redis-py connection to `url`, also Celery's `broker_use_ssl`; empty without TLS.
    The URL's own (`?ssl_ca_certs=...`) take precedence. `authorities`: a PEM file; None: `trust.authorities()`.

    By default, kombu does not verify certificates at all.
    """
    if urlsplit(url).scheme != "rediss":
        return {}
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_ca_certs": str(authorities or trust.authorities()),
        "ssl_exclude_verify_flags": list(trust.NOT_OPENSSLS_DEFAULT),
    }
