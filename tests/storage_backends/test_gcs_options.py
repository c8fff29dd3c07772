"""Each option of a gs:// destination is in the requests that need it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from storage_backends.base import ObjectSpec, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import BadDestinationUrl
from storage_backends.gcs import GcsBackend
from storage_backends.gcs.settings import OPTIONS
from storage_backends.optional import Right
from storage_backends.registry import open_destination
from tests.fault_proxy import Call, FaultProxy, fault_proxy
from tests.gcs_by_the_book import Service, gcs_by_the_book

KEY = object_key("recordings/movie.mp4")
CRYPTO_KEY = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"
PART = b"p" * 2**18


@dataclass(frozen=True)
class Sent:
    """`query`: parameters of the requests that create an object; `resource`: what they say of it; `every`: parameters
    of every request but those to a session."""

    value: str
    query: Mapping[str, str] = field(default_factory=dict)
    resource: Mapping[str, object] = field(default_factory=dict)
    every: Mapping[str, str] = field(default_factory=dict)


SENT = {
    "acl": Sent("bucketOwnerFullControl", {"predefinedAcl": "bucketOwnerFullControl"}),
    "kms_key_name": Sent(CRYPTO_KEY, {"kmsKeyName": CRYPTO_KEY}),
    "metadata": Sent("room;team=video", resource={"metadata": {"room": "r1", "team": "video"}}),
    "storage_class": Sent("NEARLINE", resource={"storageClass": "NEARLINE"}),
    "user_project": Sent("my-project", every={"userProject": "my-project"}),
}


def test_every_option_is_tested() -> None:
    assert SENT.keys() == set(OPTIONS)


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Service, FaultProxy]]:
    with gcs_by_the_book() as service:
        service.objects["bucket"] = {}
        port = urlsplit(f"http://{service.authority}").port
        assert port is not None
        with fault_proxy(port) as proxy:
            service.authority = f"127.0.0.1:{proxy.port}"
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{service.authority}")
            yield service, proxy


def query_of(call: Call) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(call.path).query))


@pytest.mark.parametrize("option", SENT)
def test_an_option_is_in_a_put_and_in_an_upload(option: str, talk: tuple[Service, FaultProxy]) -> None:
    service, proxy = talk
    sent = SENT[option]
    spec = ObjectSpec(KEY, "video/mp4", 5, len(PART), media=True, labels={"room": "r1"})
    stored = []
    with contextlib.closing(open_destination(f"gs://bucket/pre?{option}={sent.value}")) as store:
        store.put(spec, b"movie", crc32c_of(b"movie"))
        stored.append(service.objects["bucket"][f"pre/{KEY}"][0])
        upload = store.begin(spec)
        upload.complete([upload.put_part(1, PART, crc32c_of(PART))], crc32c_of(PART))
        stored.append(service.objects["bucket"][f"pre/{KEY}"][0])
        store.stat(KEY)
        store.read(KEY, 0, 5)
        list(store.list())
        store.delete(KEY)

    creating = [call for call in proxy.calls if "uploadType=" in call.path]
    assert len(creating) == 2
    for call in creating:
        assert query_of(call).items() >= sent.query.items()
    for call in proxy.calls:
        if not call.path.startswith("/session"):
            assert query_of(call).items() >= sent.every.items(), call.path
    for resource in stored:
        for name, value in sent.resource.items():
            found = resource[name]
            assert found == value or (isinstance(value, dict) and found.items() >= value.items())


def test_a_record_has_neither_class_nor_labels(talk: tuple[Service, FaultProxy]) -> None:
    service, _ = talk
    url = "gs://bucket/pre?storage_class=ARCHIVE&metadata=room;team=video"
    with contextlib.closing(open_destination(url)) as store:
        store.put(ObjectSpec(KEY, "application/json"), b"{}", crc32c_of(b"{}"))

    resource = json.loads(json.dumps(service.objects["bucket"][f"pre/{KEY}"][0]))
    assert "storageClass" not in resource
    assert "room" not in resource["metadata"]
    assert resource["metadata"]["team"] == "video"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("kms_key_id=k", "unknown option 'kms_key_id'; did you mean kms_key_name?"),
        ("kms_key_name=k", "kms_key_name is projects/P/locations/L/keyRings/R/cryptoKeys/K"),
        ("storage_class=COLD", "did you mean COLDLINE?"),
        ("storage_class=GLACIER", "storage_class is one of STANDARD, NEARLINE, COLDLINE, ARCHIVE"),
        ("acl=public-read", "did you mean publicRead?"),
        ("metadata=room=", "the value of room has 1 to 256"),
        ("user_project=a b", "user_project is the id of a project"),
    ],
)
def test_a_bad_option_is_named(query: str, message: str) -> None:
    with pytest.raises(BadDestinationUrl) as error:
        open_destination(f"gs://bucket/prefix?{query}")

    assert message in str(error.value)


# -- rights --------------------------------------------------------------------------------------------------
NEEDED = {f"storage.objects.{verb}" for verb in ("create", "get", "list", "delete")}


def rights(service: Service, *permissions: str) -> dict[str, Right]:
    service.permissions = set(permissions)
    with contextlib.closing(GcsBackend("bucket", "pre")) as store:
        return {right.action: right for right in store.rights(KEY)}


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_a_right_that_is_missing_is_named(missing: str, talk: tuple[Service, FaultProxy]) -> None:
    told = rights(talk[0], *(NEEDED - {missing}))

    assert {action for action, right in told.items() if right.needed_for and not right.granted} == {missing}


def test_a_right_that_is_not_needed_is_named(talk: tuple[Service, FaultProxy]) -> None:
    told = rights(talk[0], *NEEDED, "storage.buckets.delete")

    assert [action for action, right in told.items() if right.granted and not right.needed_for] == [
        "storage.buckets.delete"
    ]


def test_of_rights_under_a_prefix_alone_nothing_is_told(talk: tuple[Service, FaultProxy]) -> None:
    assert rights(talk[0]) == {}


def test_the_role_of_the_workers_has_the_rights_that_are_tried() -> None:
    role = Path(__file__).parents[2] / "deploy/policies/gcs-worker.yaml"

    assert set(yaml.safe_load(role.read_text())["includedPermissions"]) == NEEDED
