"""URLs of the storage: what they open, until when, and what they do not."""

from __future__ import annotations

import base64
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.simulator.process import Simulator, running_simulator


def test_a_signed_url_opens_its_file(simulator: Simulator, client: httpx.Client) -> None:
    asset = simulator.asset("composite")

    answer = client.get(simulator.signed_url(asset["id"]))

    assert answer.status_code == 200
    assert answer.content == simulator.content(asset["id"], asset["objects"][0]["path"])
    assert answer.headers["content-type"] == "video/mp4"


def test_the_answer_says_what_was_signed(simulator: Simulator) -> None:
    asset = simulator.asset("composite")

    answer = simulator.get(f"/recording-assets/{asset['id']}/presigned-url", presign_duration=600).json()

    assert answer.keys() == {"id", "path", "url", "expiry"}
    assert (answer["id"], answer["path"], answer["expiry"]) == (asset["id"], asset["row"]["path"], 600)
    assert parse_qs(urlsplit(answer["url"]).query)["X-Amz-Expires"] == ["600"]


def test_three_days_are_signed_for_when_nothing_is_said(simulator: Simulator) -> None:
    answer = simulator.get(f"/recording-assets/{simulator.asset('chat')['id']}/presigned-url")

    assert answer.json()["expiry"] == 3 * 24 * 3600


@pytest.mark.parametrize("duration", ["0", "-5", "soon"])
def test_a_duration_that_is_none_is_refused(simulator: Simulator, duration: str) -> None:
    path = f"/recording-assets/{simulator.asset('chat')['id']}/presigned-url"

    assert simulator.get(path, presign_duration=duration).status_code == 400


def test_a_failed_asset_has_nothing_to_sign(simulator: Simulator) -> None:
    asset = simulator.asset("failed")

    assert asset["row"]["status"] == "failed"
    assert simulator.get(f"/recording-assets/{asset['id']}/presigned-url").status_code == 404


def test_two_urls_of_the_same_moment_differ(simulator: Simulator) -> None:
    asset = simulator.asset("composite")["id"]

    assert simulator.signed_url(asset) != simulator.signed_url(asset)


def test_a_url_expires_with_403(client: httpx.Client) -> None:
    with running_simulator("minimal") as simulator:
        url = simulator.signed_url(simulator.asset("composite")["id"], seconds=3600)

        simulator.shift_clock(timedelta(seconds=3590))
        before = client.get(url)
        simulator.shift_clock(timedelta(seconds=3601))
        after = client.get(url)

    assert before.status_code == 200
    assert after.status_code == 403
    assert "Request has expired" in after.text


def test_head_is_refused_on_a_url_that_was_signed_for_get(simulator: Simulator, client: httpx.Client) -> None:
    answer = client.head(simulator.signed_url(simulator.asset("composite")["id"]))

    assert answer.status_code == 403


def test_a_changed_signature_is_refused_in_xml(simulator: Simulator, client: httpx.Client) -> None:
    url = simulator.signed_url(simulator.asset("composite")["id"])
    changed = url[:-1] + ("0" if url[-1] != "0" else "1")

    answer = client.get(changed)

    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/xml"
    assert "<Code>SignatureDoesNotMatch</Code>" in answer.text


def test_a_longer_life_than_was_signed_is_refused(simulator: Simulator, client: httpx.Client) -> None:
    url = simulator.signed_url(simulator.asset("composite")["id"], seconds=600)

    answer = client.get(url.replace("X-Amz-Expires=600", "X-Amz-Expires=6000"))

    assert answer.status_code == 403


def test_a_signature_opens_no_other_path(simulator: Simulator, client: httpx.Client) -> None:
    one, other = (
        urlsplit(simulator.signed_url(simulator.asset(kind)["id"])) for kind in ("composite", "chat")
    )

    answer = client.get(one._replace(path=other.path).geturl())

    assert answer.status_code == 403


def test_no_signature_is_refused(simulator: Simulator, client: httpx.Client) -> None:
    url = simulator.signed_url(simulator.asset("composite")["id"])

    assert client.get(url.partition("?")[0]).status_code == 403


def test_an_amz_header_that_was_not_signed_is_refused(simulator: Simulator, client: httpx.Client) -> None:
    url = simulator.signed_url(simulator.asset("composite")["id"])

    answer = client.get(url, headers={"x-amz-checksum-mode": "ENABLED"})

    assert answer.status_code == 403


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_nothing_can_be_written(simulator: Simulator, client: httpx.Client, method: str) -> None:
    url = simulator.signed_url(simulator.asset("composite")["id"])

    assert client.request(method, url).status_code == 405


def test_gcs_flavour_has_googles_names_and_its_checksums(client: httpx.Client) -> None:
    with running_simulator("minimal", flavour="gcs") as simulator:
        asset = simulator.truth()[0]
        url = simulator.signed_url(asset["id"])
        answer = client.get(url)

    hashes = dict(part.split("=", 1) for part in ",".join(answer.headers.get_list("x-goog-hash")).split(","))
    assert "X-Goog-Signature=" in url
    assert "X-Amz" not in url
    assert int.from_bytes(base64.b64decode(hashes["crc32c"]), "big") == asset["objects"][0]["crc32c"]
    assert answer.status_code == 200
