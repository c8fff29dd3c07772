"""Time stamps of a Time Stamping Authority (RFC 3161)."""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path

import httpx
from pydantic import SecretStr

from archiver.core.upkeep.stating import TimeStampRefused
from archiver.http import trust

TIMEOUT = timedelta(seconds=30)
_MAX_BYTES = 64 * 1024
_SHA256 = bytes.fromhex("300d06096086480165030402010500")  # AlgorithmIdentifier
_GRANTED = (0, 1)  # granted, granted with modifications


class TimeStampAuthority:
    """Close it. `url` may hold credentials."""

    def __init__(self, url: SecretStr, authorities: Path) -> None:
        self._url = url
        self._client = httpx.Client(timeout=TIMEOUT.total_seconds(), verify=trust.context(authorities))

    def close(self) -> None:
        self._client.close()

    def stamp(self, digest: bytes) -> bytes:
        """Return the response for a SHA-256, DER. Whether its signature is right is for the auditor's tool to say:
        only that it was granted, and is of this digest, is checked. Raises TimeStampRefused."""
        headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
        try:
            answer = self._client.post(
                self._url.get_secret_value(), content=query(digest, secrets.randbits(63)), headers=headers
            )
        except httpx.HTTPError as error:
            raise TimeStampRefused(
                f"the server of ARCHIVER_STATEMENT_TSA_URL could not be asked: {type(error).__name__}"
            ) from None
        if answer.status_code != 200 or len(answer.content) > _MAX_BYTES:
            raise TimeStampRefused(f"the server of ARCHIVER_STATEMENT_TSA_URL answered {answer.status_code}")
        if _status(answer.content) not in _GRANTED or digest not in answer.content:
            raise TimeStampRefused(
                "the server of ARCHIVER_STATEMENT_TSA_URL gave no time stamp of this statement"
            )
        return answer.content


def query(digest: bytes, nonce: int) -> bytes:
    """Return a TimeStampReq in DER: version 1, the SHA-256, a nonce, and the wish for the certificate."""
    imprint = _tagged(0x30, _SHA256 + _tagged(0x04, digest))
    number = nonce.to_bytes(nonce.bit_length() // 8 + 1, "big")
    return _tagged(0x30, _tagged(0x02, b"\x01") + imprint + _tagged(0x02, number) + _tagged(0x01, b"\xff"))


def _tagged(tag: int, content: bytes) -> bytes:
    assert len(content) < 128, "short form"
    return bytes([tag, len(content)]) + content


def _status(response: bytes) -> int | None:
    """Return the PKIStatus: SEQUENCE { SEQUENCE { INTEGER ..."""
    at = 0
    for _ in range(2):
        if response[at : at + 1] != b"\x30" or len(response) < at + 2:
            return None
        length = response[at + 1]
        at += 2 + (length & 0x7F if length & 0x80 else 0)
    return response[at + 2] if response[at : at + 2] == b"\x02\x01" and len(response) > at + 2 else None
