from __future__ import annotations

import json
from datetime import timedelta

import pytest

from archiver.core.destinations.identity import IdentityVerdict, Manifests, Memory, identify
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
INTENDED = Memory(intended_id="A", others=True, has_archived=True)


def marker(id: str = "A", *workspaces: str) -> Marker:  # noqa: A002 - its name
    return Marker(id, NOW, workspaces)


CASES = [
    # the ledger remembers its id
    ("known", KNOWN, marker("A", OURS), Manifests.NONE, IdentityVerdict.KNOWN),
    ("known, of an older access key", KNOWN, marker("A", STAGING), Manifests.MOST, IdentityVerdict.KNOWN),
    ("known, nobody knew the workspace", KNOWN, marker("A"), Manifests.MOST, IdentityVerdict.KNOWN),
    ("another disk under the same name", KNOWN, marker("B", OURS), Manifests.FOREIGN, IdentityVerdict.WRONG),
    (
        "another disk, which a copy of ours was made on",
        KNOWN,
        marker("B", OURS),
        Manifests.MOST,
        IdentityVerdict.WRONG,
    ),
    ("an unmounted disk", KNOWN, NoMarker.ABSENT, Manifests.NONE, IdentityVerdict.WRONG),
    ("unmounted, and an old worker wrote", KNOWN, NoMarker.ABSENT, Manifests.SOME, IdentityVerdict.WRONG),
    ("another machine's folder", KNOWN, NoMarker.ABSENT, Manifests.FOREIGN, IdentityVerdict.WRONG),
    ("a lifecycle rule took the marker", KNOWN, NoMarker.ABSENT, Manifests.MOST, IdentityVerdict.RESTORE),
    ("the marker was overwritten", KNOWN, NoMarker.UNREADABLE, Manifests.MOST, IdentityVerdict.RESTORE),
    (
        "rubbish for a marker, nothing of ours",
        KNOWN,
        NoMarker.UNREADABLE,
        Manifests.NONE,
        IdentityVerdict.WRONG,
    ),
    (
        "unmounted before anything was archived",
        Memory(id="A"),
        NoMarker.ABSENT,
        Manifests.NONE,
        IdentityVerdict.WRONG,
    ),
    # a fresh set-up
    ("a fresh set-up", EMPTY, NoMarker.ABSENT, Manifests.NONE, IdentityVerdict.ADOPT),
    (
        "a lost ledger, from before there were markers",
        EMPTY,
        NoMarker.ABSENT,
        Manifests.FOREIGN,
        IdentityVerdict.ADOPT,
    ),
    ("a lost ledger", EMPTY, marker("A", OURS), Manifests.FOREIGN, IdentityVerdict.ADOPT),
    (
        "a lost ledger, the workspace was not known",
        EMPTY,
        marker("A"),
        Manifests.FOREIGN,
        IdentityVerdict.ADOPT,
    ),
    (
        "fresh staging at production's bucket",
        EMPTY,
        marker("A", STAGING),
        Manifests.FOREIGN,
        IdentityVerdict.WRONG,
    ),
    ("the same bucket, no manifest yet", EMPTY, marker("A", STAGING), Manifests.NONE, IdentityVerdict.WRONG),
    ("a bucket of both", EMPTY, marker("A", STAGING, OURS), Manifests.FOREIGN, IdentityVerdict.ADOPT),
    (
        "rubbish for a marker, nothing known",
        EMPTY,
        NoMarker.UNREADABLE,
        Manifests.NONE,
        IdentityVerdict.WRONG,
    ),
    # the ledger has archived rows, and remembers no destination: the version before wrote them
    ("an upgrade", UPGRADED, NoMarker.ABSENT, Manifests.MOST, IdentityVerdict.ADOPT),
    (
        "an upgrade, added under the old version",
        UPGRADED,
        NoMarker.ABSENT,
        Manifests.SOME,
        IdentityVerdict.ADOPT,
    ),
    ("an upgrade on an unmounted disk", UPGRADED, NoMarker.ABSENT, Manifests.NONE, IdentityVerdict.WRONG),
    (
        "an upgrade of staging at production",
        UPGRADED,
        marker("B", STAGING),
        Manifests.FOREIGN,
        IdentityVerdict.WRONG,
    ),
    ("the other of two was unmounted", EXPECTED, NoMarker.ABSENT, Manifests.NONE, IdentityVerdict.WRONG),
    ("and is mounted again", EXPECTED, NoMarker.ABSENT, Manifests.MOST, IdentityVerdict.ADOPT),
    # the ledger remembers others, and not this one
    ("an empty one was added", ADDED, NoMarker.ABSENT, Manifests.NONE, IdentityVerdict.NEW),
    ("a used one was added", ADDED, NoMarker.ABSENT, Manifests.FOREIGN, IdentityVerdict.WRONG),
    ("one with our manifests was added", ADDED, NoMarker.ABSENT, Manifests.SOME, IdentityVerdict.ADOPT),
    (
        "a marked one was added that we know nothing of",
        ADDED,
        marker("B", OURS),
        Manifests.NONE,
        IdentityVerdict.WRONG,
    ),
    (
        "a marked one with our manifests was added",
        ADDED,
        marker("B", OURS),
        Manifests.SOME,
        IdentityVerdict.ADOPT,
    ),
    # its marker was written, and nobody heard of it
    ("written, then archived elsewhere", INTENDED, marker("A", OURS), Manifests.NONE, IdentityVerdict.NEW),
    (
        "written, and refused by the version before",
        Memory(intended_id="A", expected=True, others=True, has_archived=True),
        marker("A", OURS),
        Manifests.NONE,
        IdentityVerdict.NEW,
    ),
    ("written beside older ones", INTENDED, marker("A", OURS), Manifests.FOREIGN, IdentityVerdict.ADOPT),
    (
        "written, nothing archived yet",
        Memory(intended_id="A"),
        marker("A", OURS),
        Manifests.NONE,
        IdentityVerdict.ADOPT,
    ),
    ("another one than was written", INTENDED, marker("B", OURS), Manifests.NONE, IdentityVerdict.WRONG),
    (
        "written, then another is known",
        Memory(id="B", intended_id="A", has_archived=True),
        marker("A", OURS),
        Manifests.NONE,
        IdentityVerdict.WRONG,
    ),
    (
        "production, marked, added to staging",
        ADDED,
        marker("B", STAGING),
        Manifests.FOREIGN,
        IdentityVerdict.WRONG,
    ),
    (
        "ours, marked under an older access key",
        ADDED,
        marker("B", STAGING),
        Manifests.MOST,
        IdentityVerdict.ADOPT,
    ),
]


@pytest.mark.parametrize(
    ("memory", "found", "manifests", "verdict"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_what_a_destination_is(
    memory: Memory, found: Marker | NoMarker, manifests: Manifests, verdict: IdentityVerdict
) -> None:
    identity = identify(memory, found, manifests, OURS)

    assert identity.verdict is verdict
    assert bool(identity.why) is (verdict is not IdentityVerdict.KNOWN)


def test_an_unknown_workspace_contradicts_no_marker() -> None:
    assert identify(EMPTY, marker("A", OURS), Manifests.FOREIGN, None).verdict is IdentityVerdict.ADOPT


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
