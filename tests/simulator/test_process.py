"""The process: how it starts, what it says, how it ends."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trustme

from tests.simulator.process import running_simulator

ROOT = Path(__file__).parents[2]


def _start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "archiver.simulator", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def test_one_line_says_where_it_is_and_that_it_is_ready(tmp_path: Path, client: httpx.Client) -> None:
    with _start("--set", "minimal", "--state", str(tmp_path)) as process:
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        answer = client.get(f"{ready['api_url']}/recording-assets")
        process.terminate()
        rest, errors = process.communicate(timeout=20)

    assert answer.status_code == 401
    assert ready["api_url"].endswith("/v2")
    assert ready == json.loads((tmp_path / "ready.json").read_text())
    assert "simulated-app-secret" not in json.dumps(ready)
    assert (process.returncode, rest, errors) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("fault", ["stall", "slow", "delay"])
def test_a_signal_ends_it_at_once_and_in_silence_also_in_the_middle_of_an_answer(
    client: httpx.Client, number: signal.Signals, fault: str
) -> None:
    arguments = {"stall": {}, "slow": {"bytes_per_second": 1}, "delay": {"seconds": 300}}[fault]
    with _start("--set", "empty") as process:
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        client.post(f"{ready['control_url']}/faults", json={"fault": fault, "args": arguments})
        port = httpx.URL(ready["api_url"]).port or 0
        with socket.create_connection(("127.0.0.1", port)) as held:
            held.sendall(b"GET /v2/recording-assets HTTP/1.1\r\nHost: x\r\n\r\n")
            while not client.get(f"{ready['control_url']}/faults").json()[0]["fired"]:
                pass
            process.send_signal(number)
            _, errors = process.communicate(timeout=20)

    assert (process.returncode, errors) == (0, "")


def test_it_ends_with_its_parents_pipe() -> None:
    with _start("--set", "minimal", "--until-stdin-closes") as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        process.stdin.close()

        assert process.wait(20) == 0


def test_a_taken_port_is_named_and_ends_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with _start("--port", str(port)) as process:
            _, errors = process.communicate(timeout=20)

    assert process.returncode == 1
    assert errors == f"simulator: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    "arguments", [["--set", "nonsense"], ["--tls-key", "key.pem"], ["--order", "random"]]
)
def test_a_wrong_argument_is_refused(arguments: list[str]) -> None:
    with _start(*arguments) as process:
        _, errors = process.communicate(timeout=20)

    assert process.returncode == 2
    assert arguments[0] in errors


def test_the_access_log_shows_no_query(client: httpx.Client) -> None:
    with _start("--set", "vod", "--access-log") as process:
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        truth = client.get(f"{ready['control_url']}/assets", params={"checksums": "no"}).json()["assets"]
        client.get(f"{ready['api_url']}/recording-assets?start=secret-query")
        client.get(f"{ready['cdn_url']}/{truth[0]['row']['path'].split('/', 3)[3]}?Signature=secret-query")
        process.terminate()
        _, errors = process.communicate(timeout=20)

    assert "api GET /v2/recording-assets 401" in errors
    assert "cdn GET /" in errors
    assert "secret-query" not in errors


def test_urls_name_the_public_host() -> None:
    with running_simulator("demo", public_host="localhost") as simulator:
        urls = [simulator.signed_url(simulator.asset(kind)["id"]) for kind in ("composite", "vod-ts")]

    assert {httpx.URL(url).host for url in [simulator.api_url, *urls]} == {"localhost"}


def test_it_speaks_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key, root = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "root.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(root)

    with running_simulator("demo", tls_certificate=chain, tls_key=key, trusted=root) as simulator:
        context = ssl.create_default_context(cafile=str(root))
        with httpx.Client(verify=context, trust_env=False) as client:
            statuses = [
                client.get(simulator.signed_url(simulator.asset(kind)["id"])).status_code
                for kind in ("composite", "vod-ts")
            ]

    assert simulator.api_url.startswith("https://")
    assert statuses == [200, 200]


def test_a_restart_on_the_same_state_knows_the_same_assets(tmp_path: Path) -> None:
    with running_simulator("minimal", state=tmp_path) as simulator:
        added = simulator.add_asset("stream", row={"size": 5})
        before = simulator.truth()
    with running_simulator("minimal", state=tmp_path) as simulator:
        after = simulator.truth()

    assert after == before
    assert added["id"] in {asset["id"] for asset in after}


def test_a_url_outlives_a_restart_on_the_same_ports(tmp_path: Path, client: httpx.Client) -> None:
    with running_simulator("minimal", state=tmp_path) as simulator:
        asset = simulator.asset("composite")["id"]
        url = httpx.URL(simulator.signed_url(asset))
    with running_simulator("minimal", state=tmp_path, storage_port=url.port) as simulator:
        status = client.get(url).status_code

    assert status == 200


def test_only_the_user_can_read_the_state(tmp_path: Path) -> None:
    with running_simulator("minimal", state=tmp_path):
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}

    assert modes == {"simulator.json": 0o600, "ready.json": 0o600}
