from __future__ import annotations

import ast
import string
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archiver.core.records import keys
from archiver.core.records.keys import (
    DEFAULT_TEMPLATE,
    asset_folder,
    asset_id_of,
    check_template,
    end_record_key,
    external_path,
    file_name,
    manifest_key,
    safe_path,
    thumbnail_path,
)
from archiver.hms.models import Asset
from storage_backends.base import object_key

ROOT = Path(__file__).parents[3]
CREATED = datetime(2026, 8, 31, 23, 30, tzinfo=UTC)

awkward = st.text(
    alphabet=st.one_of(
        st.sampled_from(list("aA.b/!%\\ 09_-=h\0é\u0301\u2028😀\udc80~")),
        st.characters(),
        st.sampled_from("az."),
    ),
    max_size=40,
)
names = st.one_of(awkward, st.builds(str.__mul__, awkward, st.integers(1, 30)))
# JSON cannot bring a lone surrogate this far
api_texts = names.map(lambda text: text.encode("utf-8", "ignore").decode())
assets = st.builds(
    Asset,
    id=api_texts.filter(bool),
    room_id=st.one_of(st.none(), api_texts),
    session_id=st.one_of(st.none(), api_texts),
    type=api_texts,
)


def asset(asset_id: str = "a1", **values: object) -> Asset:
    fields = {
        "room_id": "r1",
        "session_id": "s1",
        "type": "chat",
        "created_at": CREATED.isoformat(),
        **values,
    }
    return Asset.model_validate({"id": asset_id, **fields})


def test_an_asset_lies_under_its_room_its_session_and_its_type() -> None:
    assert asset_folder(asset()) == "recordings/r1/s1/chat/a1"


def test_a_template_may_lay_assets_out_by_day() -> None:
    assert asset_folder(asset(), "x/{yyyy}/{mm}/{dd}/{asset_id}") == "x/2026/08/31/a1"


def test_a_field_missing_from_the_api_is_called_unknown() -> None:
    bare = Asset(id="a1")

    assert asset_folder(bare, "{room_id}/{session_id}/{type}/{job_id}/{yyyy}/{asset_id}") == (
        "unknown/unknown/unknown/unknown/unknown/a1"
    )


@pytest.mark.parametrize(
    ("asset_id", "segment"),
    [
        ("../../etc/passwd", "!2E.!2F..!2Fetc!2Fpasswd"),
        ("..", "!2E!2E"),
        ("a b", "a!20b"),
        ("nul\0", "nul!00"),
        ("é", "!C3!A9"),
        ("!", "!21"),
    ],
)
def test_a_hostile_id_is_one_safe_segment(asset_id: str, segment: str) -> None:
    assert asset_folder(asset(asset_id)).split("/")[-1] == segment


def test_an_id_of_300_characters_is_cut_and_still_its_own() -> None:
    one, other = asset_folder(asset("x" * 300)), asset_folder(asset("x" * 299 + "y"))

    assert one != other
    assert len(one.split("/")[-1]) == len(other.split("/")[-1]) == 64


def test_a_room_called_like_our_own_folder_does_not_get_into_it() -> None:
    assert asset_folder(asset(room_id="manifests"), "{room_id}/{asset_id}") == "!6Danifests/a1"


@given(assets, assets)
def test_two_assets_never_share_a_folder_nor_lie_in_each_others(one: Asset, other: Asset) -> None:
    first, second = (asset_folder(each) for each in (one, other))

    assert object_key(first) == asset_folder(one, DEFAULT_TEMPLATE)
    if one.id != other.id:
        assert not f"{first}/".startswith(f"{second}/")
        assert not f"{second}/".startswith(f"{first}/")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("recordings/{room_id}", "{asset_id} must be in it"),
        ("{room_id}-{asset_id}", "segment of its own"),
        ("{asset_id!r}", "segment of its own"),
        ("{asset_id.__class__}", "segment of its own|no field"),
        ("{room}/{asset_id}", "no field 'room'"),
        ("manifests/{asset_id}", "cannot be a folder"),
        ("/{asset_id}", "cannot be a folder"),
        ("../{asset_id}", "cannot be a folder"),
        ("{asset_id", "expected '}'"),
        ("/".join(["{asset_id}"] * 7), "more than 400"),
    ],
)
def test_a_template_that_would_mix_up_assets_is_refused_with_the_reason(
    template: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_template(template)


def test_a_manifest_is_filed_by_the_utc_day_of_creation() -> None:
    in_india = CREATED.astimezone(timezone(timedelta(hours=5, minutes=30)))

    assert manifest_key("a1", in_india) == "manifests/2026/08/31/a1.json"
    assert end_record_key("a1", in_india) == "ends/2026/08/31/a1.json"


def test_an_asset_without_a_date_still_has_a_manifest_key() -> None:
    assert manifest_key("a1", None) == "manifests/undated/a1.json"


@example(asset_id=".A", dated=False)
@given(names.filter(bool), st.booleans())
def test_the_asset_id_can_be_read_from_a_manifest_key(asset_id: str, dated: bool) -> None:
    created_at = CREATED if dated else None
    key = manifest_key(asset_id, created_at)

    found = asset_id_of(key)

    assert found == asset_id or (found is None and "!h" in key)
    assert asset_id_of(end_record_key(asset_id, created_at)) == found


@pytest.mark.parametrize(
    "key",
    [
        "manifests/2026/08/a1.json",
        "manifests/undated/!zz.json",
        "recordings/undated/a1.json",
        "manifests/undated/a1",
    ],
)
def test_a_key_that_is_no_record_has_no_asset_id(key: str) -> None:
    assert asset_id_of(key) is None


@pytest.mark.parametrize(
    "plain",
    ["master.m3u8", "stream_0/stream.m3u8", "stream_0/2026-08-31/seg00001.ts", "subtitles/v1.0/a.vtt"],
)
def test_a_plain_path_stays_as_it_is(plain: str) -> None:
    assert safe_path(plain) == plain


@pytest.mark.parametrize(
    ("path", "becomes"),
    [
        ("asset.json", "!61sset.json"),
        ("Manifest.JSON", "!4Danifest.JSON"),
        ("_ext/x.ts", "!5Fext/x.ts"),
        ("thumbnails/x.png", "!74humbnails/x.png"),
        ("sub/asset.json", "sub/asset.json"),
        ("video.mp4/init.mp4", "video!2Emp4/init.mp4"),
        ("keys/key", "keys/key!"),
        ("a//b.ts", "a/!e/b.ts"),
        ("/etc/passwd.txt", "!e/etc/passwd.txt"),
        ("a\\b.ts", "a!5Cb.ts"),
    ],
)
def test_a_path_that_could_clash_is_escaped(path: str, becomes: str) -> None:
    assert safe_path(path) == becomes


@given(names)
def test_every_path_becomes_one_that_every_store_takes(path: str) -> None:
    key = object_key(safe_path(path))

    assert len(key) <= 420
    assert key.isascii()
    assert key not in ("asset.json", "manifest.json")
    assert not key.startswith(("_ext/", "thumbnails/", "_zip/"))


@given(names, names)
def test_different_paths_stay_different_and_none_is_a_folder_of_another(one: str, other: str) -> None:
    first, second = safe_path(one), safe_path(other)

    assert (first == second) == (one == other)
    assert not first.startswith(f"{second}/")
    assert not second.startswith(f"{first}/")


@given(names, st.text(string.ascii_letters, min_size=1, max_size=5))
def test_a_file_and_what_lies_below_its_name_can_both_be_stored(path: str, below: str) -> None:
    assert not safe_path(f"{path}/{below}").startswith(f"{safe_path(path)}/")


@given(names, names, names, names)
def test_files_from_elsewhere_differ_by_name_and_by_query(
    name: str, query: str, other_name: str, other_query: str
) -> None:
    first, second = external_path("ab12", name, query), external_path("ab12", other_name, other_query)

    assert object_key(first).startswith("_ext/ab12/")
    assert (first == second) == ((name, query) == (other_name, other_query))


def test_a_cut_name_keeps_its_extension() -> None:
    assert file_name("n" * 300 + ".m3u8").endswith(".m3u8")
    assert len(file_name("é" * 300 + ".m3u8", "q=1")) <= 160


def test_thumbnails_have_a_folder_of_their_own() -> None:
    assert thumbnail_path("thumb-1.png") == "thumbnails/thumb-1.png"


ROOTS = (keys.MANIFESTS, keys.ENDS, keys.CHECKS, keys.EVENTS, keys.DOCTOR, keys.MARKER)


def test_the_layout_that_is_drawn_names_every_root_and_folder() -> None:
    drawn = keys.__doc__ or ""

    for name in (*ROOTS, *(f"{folder}/" for folder in ("_ext", "_zip", "thumbnails", "!v2"))):
        assert f"    {name}" in drawn, name


def test_no_other_module_spells_a_key() -> None:
    """So a change of the layout is a change of one file."""
    layout = Path(keys.__file__)
    spelled = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}"
        for package in ("archiver", "storage_backends", "tasks", "worker")
        for path in (ROOT / package).rglob("*.py")
        if path != layout
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(ROOTS)
    ]

    assert spelled == []


def test_a_check_record_is_known_by_its_key() -> None:
    key = keys.check_record_key(CREATED, "0123456789abcdef")

    assert key == "checks/2026/08/31-233000-0123456789abcdef.jsonl.gz"
    assert keys.is_check_record(key)
    assert not keys.is_check_record("checks/2026/08/31-notes.jsonl.gz")


@pytest.mark.parametrize(
    ("key", "created_on"),
    [
        (manifest_key("a", CREATED), datetime(2026, 8, 31, tzinfo=UTC)),
        (manifest_key("a", None), None),
        ("manifests/2026/13/45/a.json", None),
        ("manifests/2026/01/a.json", None),
        ("a.json", None),
    ],
)
def test_the_day_of_a_manifest_is_in_its_key(key: str, created_on: datetime | None) -> None:
    assert keys.created_on(object_key(key)) == created_on
