from __future__ import annotations

import json
from datetime import timedelta

import pytest

from archiver.core.destinations.identity import Manifests, Memory, Verdict, identify
from archiver.core.destinations.markers import (
    MAX_MARKER_BYTES,
    MOST_WORKSPACES,
    Marker,
    NoMarker,
    parse_marker,
)
from tests.core.examples import NOW

OURS, STAGING = "workspace-ours", "workspace-staging"
EMPTY = Memory()
KNOWN = Memory(id="A", expected=True, has_archived=True)
UPGRADED = Memory(has_archived=True)
EXPECTED = Memory(expected=True, others=True, has_archived=True)
ADDED = Memory(others=True, has_archived=True)


def marker(id: str = "A", *workspaces: str) -> Marker:  # noqa: A002 - its name
    return Marker(id, NOW, workspaces)


CASES = [
    # the ledger remembers its id
    ("known", KNOWN, marker("A", OURS), Manifests.NONE, Verdict.KNOWN),
    ("known, of an older access key", KNOWN, marker("A", STAGING), Manifests.MOST, Verdict.KNOWN),
    ("known, nobody knew the workspace", KNOWN, marker("A"), Manifests.MOST, Verdict.KNOWN),
    ("another disk under the same name", KNOWN, marker("B", OURS), Manifests.FOREIGN, Verdict.WRONG),
    (
        "another disk, which a copy of ours was made on",
        KNOWN,
        marker("B", OURS),
        Manifests.MOST,
        Verdict.WRONG,
    ),
    ("an unmounted disk", KNOWN, NoMarker.ABSENT, Manifests.NONE, Verdict.WRONG),
    ("unmounted, and an old worker wrote", KNOWN, NoMarker.ABSENT, Manifests.SOME, Verdict.WRONG),
    ("another machine's folder", KNOWN, NoMarker.ABSENT, Manifests.FOREIGN, Verdict.WRONG),
    ("a lifecycle rule took the marker", KNOWN, NoMarker.ABSENT, Manifests.MOST, Verdict.RESTORE),
    ("the marker was overwritten", KNOWN, NoMarker.UNREADABLE, Manifests.MOST, Verdict.RESTORE),
    ("rubbish for a marker, nothing of ours", KNOWN, NoMarker.UNREADABLE, Manifests.NONE, Verdict.WRONG),
    (
        "unmounted before anything was archived",
        Memory(id="A"),
        NoMarker.ABSENT,
        Manifests.NONE,
        Verdict.WRONG,
    ),
    # a fresh set-up
    ("a fresh set-up", EMPTY, NoMarker.ABSENT, Manifests.NONE, Verdict.ADOPT),
    (
        "a lost ledger, from before there were markers",
        EMPTY,
        NoMarker.ABSENT,
        Manifests.FOREIGN,
        Verdict.ADOPT,
    ),
    ("a lost ledger", EMPTY, marker("A", OURS), Manifests.FOREIGN, Verdict.ADOPT),
    ("a lost ledger, the workspace was not known", EMPTY, marker("A"), Manifests.FOREIGN, Verdict.ADOPT),
    ("fresh staging at production's bucket", EMPTY, marker("A", STAGING), Manifests.FOREIGN, Verdict.WRONG),
    ("the same bucket, no manifest yet", EMPTY, marker("A", STAGING), Manifests.NONE, Verdict.WRONG),
    ("a bucket of both", EMPTY, marker("A", STAGING, OURS), Manifests.FOREIGN, Verdict.ADOPT),
    ("rubbish for a marker, nothing known", EMPTY, NoMarker.UNREADABLE, Manifests.NONE, Verdict.WRONG),
    # the ledger has archived rows, and remembers no destination: the version before wrote them
    ("an upgrade", UPGRADED, NoMarker.ABSENT, Manifests.MOST, Verdict.ADOPT),
    ("an upgrade, added under the old version", UPGRADED, NoMarker.ABSENT, Manifests.SOME, Verdict.ADOPT),
    ("an upgrade on an unmounted disk", UPGRADED, NoMarker.ABSENT, Manifests.NONE, Verdict.WRONG),
    ("an upgrade of staging at production", UPGRADED, marker("B", STAGING), Manifests.FOREIGN, Verdict.WRONG),
    ("the other of two was unmounted", EXPECTED, NoMarker.ABSENT, Manifests.NONE, Verdict.WRONG),
    ("and is mounted again", EXPECTED, NoMarker.ABSENT, Manifests.MOST, Verdict.ADOPT),
    # the ledger remembers others, and not this one
    ("an empty one was added", ADDED, NoMarker.ABSENT, Manifests.NONE, Verdict.NEW),
    ("a used one was added", ADDED, NoMarker.ABSENT, Manifests.FOREIGN, Verdict.WRONG),
    ("one with our manifests was added", ADDED, NoMarker.ABSENT, Manifests.SOME, Verdict.ADOPT),
    (
        "a marked one was added that we know nothing of",
        ADDED,
        marker("B", OURS),
        Manifests.NONE,
        Verdict.WRONG,
    ),
    ("a marked one with our manifests was added", ADDED, marker("B", OURS), Manifests.SOME, Verdict.ADOPT),
    ("production, marked, added to staging", ADDED, marker("B", STAGING), Manifests.FOREIGN, Verdict.WRONG),
    ("ours, marked under an older access key", ADDED, marker("B", STAGING), Manifests.MOST, Verdict.ADOPT),
]


@pytest.mark.parametrize(
    ("memory", "found", "manifests", "verdict"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_what_a_destination_is(
    memory: Memory, found: Marker | NoMarker, manifests: Manifests, verdict: Verdict
) -> None:
    identity = identify(memory, found, manifests, OURS)

    assert identity.verdict is verdict
    assert bool(identity.why) is (verdict is not Verdict.KNOWN)


def test_an_unknown_workspace_contradicts_no_marker() -> None:
    assert identify(EMPTY, marker("A", OURS), Manifests.FOREIGN, None).verdict is Verdict.ADOPT


def test_a_marker_is_read_as_it_was_written() -> None:
    written = Marker("A", NOW, (OURS,), began_empty=True)

    assert parse_marker(written.to_bytes()) == written


def test_fields_of_a_newer_version_in_a_marker_survive_our_writes() -> None:
    raw = json.dumps({"id": "A", "schema": "archiver.destination/2", "colour": "red"}).encode()

    found = parse_marker(raw)
    assert isinstance(found, Marker)

    again = json.loads(found.with_workspace(OURS).to_bytes())
    assert (again["id"], again["colour"], again["workspaces"]) == ("A", "red", [OURS])


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"id": 7}', b'{"id": ""}', b"[" * 20_000]
)
def test_an_invalid_marker_is_unreadable(data: bytes) -> None:
    assert parse_marker(data) is NoMarker.UNREADABLE


def test_a_marker_stays_small_however_often_access_keys_change() -> None:
    growing = marker()
    for number in range(3 * MOST_WORKSPACES):
        growing = growing.with_workspace(f"{number:016d}")

    assert len(growing.workspaces) == MOST_WORKSPACES
    assert len(growing.to_bytes()) < MAX_MARKER_BYTES
    assert growing.with_workspace(growing.workspaces[0]).workspaces[-1] == growing.workspaces[0]


def test_a_marker_of_a_wrong_clock_keeps_its_date() -> None:
    ahead = Marker("A", NOW + timedelta(days=10_000))

    assert parse_marker(ahead.to_bytes()) == ahead
