"""A simulator as a process of its own, for tests that need 100ms.

with running_simulator("minimal") as simulator:
    simulator.fault("cut", on="storage", at_byte=1000)
    ...
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import httpx
import jwt

from archiver.simulator.config import FAKE_ACCESS_KEY, FAKE_SECRET, OWN_BUCKET

_ROOT = Path(__file__).parents[2]
_GONE_WITHIN_SECONDS = 10.0


@dataclass(frozen=True)
class Simulator:
    """A running simulator. Its control endpoints are asked through `control`."""

    api_url: str
    storage_url: str
    cdn_url: str
    control: httpx.Client = field(repr=False)
    chaos_seed: int | None = None
    access_key: str = FAKE_ACCESS_KEY
    secret: str = field(default=FAKE_SECRET, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The settings that lead an archiver here, and with which assets end in their `expected_state`."""
        return {
            "HMS_API_URL": self.api_url,
            "HMS_ACCESS_KEY": self.access_key,
            "HMS_SECRET": self.secret,
            "ARCHIVER_ALLOW_PRIVATE_SOURCES": "true",
            "ARCHIVER_OWN_PATHS": f"s3://{OWN_BUCKET}/",
        }

    def token(self, **claims: Any) -> str:
        """A management token as the documentation has it; `claims` replace its own, None leaves one out."""
        now = int(datetime.now(UTC).timestamp()) - 10
        documented = {
            "access_key": self.access_key,
            "type": "management",
            "version": 2,
            "iat": now,
            "nbf": now,
            "exp": now + 24 * 3600,
            "jti": str(uuid.uuid4()),
        }
        kept = {name: value for name, value in {**documented, **claims}.items() if value is not None}
        return jwt.encode(kept, self.secret, algorithm="HS256")

    def get(self, path: str, **params: str | int) -> httpx.Response:
        """`path` of the 100ms API, with a good token."""
        headers = {"Authorization": f"Bearer {self.token()}"}
        return self.control.get(f"{self.api_url}{path}", params=params, headers=headers)

    def signed_url(self, asset_id: str, seconds: int = 3600) -> str:
        answer = self.get(f"/recording-assets/{asset_id}/presigned-url", presign_duration=seconds)
        return str(answer.raise_for_status().json()["url"])

    def fault(
        self,
        name: str,
        *,
        on: str | None = None,
        path: str | None = None,
        asset: str | None = None,
        type: str | None = None,  # noqa: A002 (100ms's own word)
        method: str | None = None,
        times: int | None = 1,
        skip: int = 0,
        **args: Any,
    ) -> int:
        """The next `times` matching requests (None: all), after `skip` of them, meet the fault; see
        `simulator.faults`. Returns its id."""
        match = {"on": on, "path": path, "asset": asset, "type": type, "method": method}
        body = {"fault": name, "match": match, "times": times, "skip": skip, "args": args}
        return int(self._post("/faults", body)["id"])

    def faults(self) -> list[dict[str, Any]]:
        """Every fault asked for, with how often it `fired`."""
        answer: list[dict[str, Any]] = self.control.get("/faults").raise_for_status().json()
        return answer

    def clear_faults(self) -> None:
        """No fault is left, and no chaos."""
        self.control.delete("/faults").raise_for_status()

    def requests(self, **wanted: Any) -> list[dict[str, Any]]:
        """The requests so far, in the order in which their answers ended; only those whose fields are `wanted`."""
        rows = self.control.get("/requests").raise_for_status().json()["requests"]
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]

    def totals(self) -> dict[str, dict[str, int]]:
        """`{"storage": {"requests": n, "bytes": n}, ...}` since the last clear."""
        totals: dict[str, dict[str, int]] = (
            self.control.get("/requests", params={"rows": "no"}).raise_for_status().json()["totals"]
        )
        return totals

    def clear_requests(self) -> None:
        self.control.delete("/requests").raise_for_status()

    def truth(self, asset_id: str | None = None, *, checksums: bool = True) -> list[dict[str, Any]]:
        """Return what a perfect archive holds; see `simulator.truth`."""
        params = {"checksums": "yes" if checksums else "no"} | ({"asset": asset_id} if asset_id else {})
        assets: list[dict[str, Any]] = (
            self.control.get("/assets", params=params).raise_for_status().json()["assets"]
        )
        return assets

    def asset(self, kind: str) -> dict[str, Any]:
        """The truth, without checksums, of the only asset of this kind."""
        (found,) = (asset for asset in self.truth(checksums=False) if asset["kind"] == kind)
        return found

    def content(self, asset_id: str, path: str) -> bytes:
        """The bytes of an object of the truth."""
        answer = self.control.get("/content", params={"asset": asset_id, "path": path})
        return answer.raise_for_status().content

    def add_asset(
        self,
        kind: str = "composite",
        *,
        age: timedelta = timedelta(0),
        row: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """A new asset; its truth, without checksums. `row` replaces fields of the API's JSON."""
        body = {"kind": kind, "age_seconds": age.total_seconds(), "row": dict(row or {}), "options": options}
        return self._post("/assets", body)

    def shift_clock(self, shift: timedelta) -> None:
        """How far the storage's clock (retention, the end of URLs) is ahead of the real one."""
        self._post("/clock", {"shift_seconds": shift.total_seconds()})

    def skew_api_clock(self, skew: timedelta) -> None:
        """How far the API's clock (tokens, its Date header) is ahead of the real one."""
        self._post("/clock", {"api_skew_seconds": skew.total_seconds()})

    def webhooks(self) -> list[dict[str, Any]]:
        """`{"event": ..., "answers": [...]}` for every asset that 100ms would announce."""
        events: list[dict[str, Any]] = self.control.get("/webhooks").raise_for_status().json()
        return events

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self.control.post(path, json=body)
        if answer.status_code >= 400:
            raise ValueError(answer.text)
        result: dict[str, Any] = answer.json()
        return result


@contextmanager
def running_simulator(set_name: str = "demo", **options: Any) -> Iterator[Simulator]:
    """A simulator with this set of assets, gone at the end. `options` are those of its command line:
    `chaos_rate=0.1` is `--chaos-rate 0.1`, `hide_expired=True` is `--hide-expired`; and with TLS, `trusted` is
    the file of the authority that signed its certificate."""
    trusted = options.pop("trusted", None)
    arguments = ["--set", set_name, "--until-stdin-closes", *_arguments(options)]
    with tempfile.TemporaryFile() as errors:
        process = _start(arguments, errors)
        try:
            yield from _connected(process, errors, trusted, options.get("secret", FAKE_SECRET))
        finally:
            _stop(process)


def _connected(
    process: subprocess.Popen[bytes], errors: IO[bytes], trusted: Path | None, secret: str
) -> Iterator[Simulator]:
    if process.stdout is None:
        raise RuntimeError("the simulator was started without a pipe")
    line = process.stdout.readline()
    if not line:
        errors.seek(0)
        raise RuntimeError(f"the simulator did not start: {errors.read().decode(errors='replace')}")
    ready = json.loads(line)
    # Without a file it trusts nobody, and saves the 40 ms that reading the system's authorities takes.
    verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trusted is not None:
        verify.load_verify_locations(trusted)
    with httpx.Client(base_url=ready["control_url"], timeout=60.0, trust_env=False, verify=verify) as control:
        yield Simulator(
            api_url=ready["api_url"],
            storage_url=ready["storage_url"],
            cdn_url=ready["cdn_url"],
            control=control,
            chaos_seed=ready["chaos_seed"],
            access_key=ready["access_key"],
            secret=secret,
        )


def _arguments(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            yield flag
        elif value is not None and value is not False:
            yield from (flag, str(value))


def _start(arguments: Sequence[str], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "archiver.simulator", *arguments]
    return subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(_GONE_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
