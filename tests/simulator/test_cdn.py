"""VOD trees at the CDN: what the master's URL opens, and how."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urljoin

import httpx
import pytest

from tests.simulator.process import Simulator, running_simulator


def _children(simulator: Simulator, kind: str) -> tuple[dict[str, object], str, list[str]]:
    asset = simulator.asset(kind)
    paths = [entry["path"] for entry in asset["objects"] if entry["path"] != "master.m3u8"]
    return asset, simulator.signed_url(asset["id"]), paths


def test_relative_children_are_open_to_whoever_knows_the_master(
    simulator: Simulator, client: httpx.Client
) -> None:
    asset, url, paths = _children(simulator, "vod-fmp4")

    answers = {path: client.get(urljoin(url, path)) for path in paths}

    assert {answer.status_code for answer in answers.values()} == {200}
    for path, answer in answers.items():
        assert answer.content == simulator.content(str(asset["id"]), path)


def test_children_behind_a_token_need_the_query_of_the_master(
    simulator: Simulator, client: httpx.Client
) -> None:
    _, url, paths = _children(simulator, "vod-ts")
    query = url.partition("?")[2]

    without = {client.get(urljoin(url, path)).status_code for path in paths}
    carried = {client.get(f"{urljoin(url, path)}?{query}").status_code for path in paths}

    assert without == {403}
    assert carried == {200}
    assert all(name in query for name in ("Policy=", "Signature=", "Key-Pair-Id="))


def test_children_behind_cookies_need_those_that_the_master_set(
    simulator: Simulator, client: httpx.Client
) -> None:
    _, url, paths = _children(simulator, "vod-cookies")
    query = url.partition("?")[2]

    before = {client.get(urljoin(url, path)).status_code for path in paths}
    carried = {client.get(f"{urljoin(url, path)}?{query}").status_code for path in paths}
    master = client.get(url)
    after = {client.get(urljoin(url, path)).status_code for path in paths}

    assert before == carried == {403}
    assert master.status_code == 200
    assert {cookie.split("=")[0] for cookie in master.headers.get_list("set-cookie")} == {
        "CloudFront-Policy",
        "CloudFront-Signature",
        "CloudFront-Key-Pair-Id",
    }
    assert after == {200}


def test_a_token_opens_no_other_folder(simulator: Simulator, client: httpx.Client) -> None:
    mine, other = (simulator.signed_url(simulator.asset(kind)["id"]) for kind in ("vod-ts", "vod-cookies"))

    answer = client.get(f"{other.partition('?')[0]}?{mine.partition('?')[2]}")

    assert answer.status_code == 403


def test_a_changed_policy_is_refused(simulator: Simulator, client: httpx.Client) -> None:
    url = simulator.signed_url(simulator.asset("vod-ts")["id"])
    other = simulator.signed_url(simulator.asset("vod-ts")["id"], seconds=9999)

    mixed = httpx.URL(url).copy_set_param("Policy", httpx.URL(other).params["Policy"])

    assert client.get(mixed).status_code == 403


def test_a_token_expires_for_every_child(client: httpx.Client) -> None:
    with running_simulator("vod") as simulator:
        _, url, paths = _children(simulator, "vod-ts")
        child = f"{urljoin(url, paths[0])}?{url.partition('?')[2]}"
        before = client.get(child).status_code

        simulator.shift_clock(timedelta(hours=2))

        assert (before, client.get(child).status_code, client.get(url).status_code) == (200, 403, 403)


def test_head_is_allowed(simulator: Simulator, client: httpx.Client) -> None:
    url = simulator.signed_url(simulator.asset("vod-ts")["id"])

    answer = client.head(url)

    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(client.get(url).content)


def test_a_key_that_does_not_exist_is_404(simulator: Simulator, client: httpx.Client) -> None:
    url = simulator.signed_url(simulator.asset("vod-fmp4")["id"])

    assert client.get(urljoin(url, "stream_9/stream.m3u8")).status_code == 404


def test_files_that_no_master_published_are_not_at_the_cdn(
    simulator: Simulator, client: httpx.Client
) -> None:
    key = simulator.asset("composite")["row"]["path"].split("/", 3)[3]

    assert client.get(f"{simulator.cdn_url}/{key}").status_code == 403


def test_children_of_a_redirected_master_are_relative_to_where_it_led(client: httpx.Client) -> None:
    with running_simulator("vod") as simulator:
        url = simulator.signed_url(simulator.asset("vod-redirect")["id"])
        first = client.get(url)
        final = first.headers["location"]
        query = final.partition("?")[2]

        wrong = client.get(f"{urljoin(url, 'stream_0/stream.m3u8')}?{query}")
        right = client.get(f"{urljoin(final, 'stream_0/stream.m3u8')}?{query}")

    assert first.status_code == 302
    assert (wrong.status_code, right.status_code) == (404, 200)


@pytest.mark.parametrize("kind", ["composite", "vod-fmp4"])
def test_a_redirect_elsewhere_leads_to_another_port_that_would_answer(
    client: httpx.Client, kind: str
) -> None:
    with running_simulator("empty") as simulator:
        kind = "file" if kind == "composite" else "vod-redirect"
        asset = simulator.add_asset(kind, redirect="elsewhere", data_base64="AAAA", name="a.mp4")
        url = simulator.signed_url(asset["id"])
        target = httpx.URL(client.get(url).headers["location"])

        answer = client.get(target)

    assert target.port != httpx.URL(url).port
    assert answer.status_code == 200


def test_form_3_signs_the_master_alone(client: httpx.Client) -> None:
    with running_simulator("needs-source-access") as simulator:
        asset, url, paths = _children(simulator, "vod-source-access")
        query = url.partition("?")[2]
        master = client.get(url)
        children = {client.get(f"{urljoin(url, path)}?{query}").status_code for path in paths}

    assert master.text.startswith("#EXTM3U")
    assert url.startswith(f"{simulator.storage_url}/acme-undeclared-recordings/")
    assert children == {403}
    assert asset["expected_state"] == "needs_source_access"


def test_thumbnails_are_covered_by_the_token_of_one_vod_and_not_of_the_other(
    simulator: Simulator, client: httpx.Client
) -> None:
    def mapped(kind: str) -> list[int]:
        """By the pair of the asset's own `path` and `url`."""
        asset = simulator.asset(kind)
        url, _, query = simulator.signed_url(asset["id"]).partition("?")
        root = asset["row"]["path"]
        before = next(url[:-n] for n in range(len(root)) if n and not url.endswith(root[-n - 1 :]))
        shared = root[: len(root) - (len(url) - len(before))]
        paths = asset["row"]["thumbnails"]
        return [client.get(f"{before}{path.removeprefix(shared)}?{query}").status_code for path in paths]

    assert mapped("vod-ts") == [200, 200]
    assert mapped("vod-fmp4") == [403, 403]
