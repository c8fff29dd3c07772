"""How a `rediss://` server's certificate is verified, by the ledger and by Celery's broker alike."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from archiver.http import trust


def tls_options(url: str, authorities: Path | None = None) -> Mapping[str, Any]:
    """Arguments of a redis-py connection to `url`, and Celery's `broker_use_ssl`; empty without TLS. What the URL says
    itself (`?ssl_ca_certs=...`) counts more. `authorities`: a PEM file; None: `trust.authorities()`.

    Left to itself, kombu does not verify certificates at all.
    """
    if urlsplit(url).scheme != "rediss":
        return {}
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_ca_certs": str(authorities or trust.authorities()),
        "ssl_exclude_verify_flags": list(trust.NOT_OPENSSLS_DEFAULT),
    }
