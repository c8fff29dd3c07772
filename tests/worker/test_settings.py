from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from storage_backends.destination_url import parse_destination
from worker.embedded.flower import flower_url
from worker.errors import SettingsError
from worker.settings import Settings, VodZip, load_settings, variables

EXAMPLE = Path(__file__).parents[2] / ".env.example"
Env = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory without `.env`, an environment without our variables, and the environment restored after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in [name for name in os.environ if name.upper().startswith(("ARCHIVER_", "HMS_"))]:
        del os.environ[name]


def _with(**given: str) -> Settings:
    os.environ.update(given)
    return load_settings()


def _refused(**given: str) -> str:
    with pytest.raises(SettingsError) as refused:
        _with(**given)
    return str(refused.value)


# -- defaults and what is given -------------------------------------------------------------------------------
def test_nothing_need_be_set(tmp_path: Path) -> None:
    settings = load_settings()

    assert settings.destinations == (str(tmp_path / "archive"),)
    assert settings.state_dir == tmp_path / ".archiver"
    assert settings.hms_api_url == "https://api.100ms.live/v2"
    assert (settings.retention, settings.sweep_every) == (timedelta(days=15), timedelta(minutes=5))
    assert (settings.types, settings.rooms, settings.own_paths) == (None, None, ())
    assert settings.vod_zip is VodZip.UNPACK
    assert settings.redis_url is None
    assert not settings.has_credentials
    assert not settings.allow_private_sources
    assert settings.warnings == ()


def test_one_bucket_name_at_two_providers_is_two_destinations() -> None:
    both = ("s3://a/b", "s3://a/b?endpoint_url=https://elsewhere.example")

    assert _with(ARCHIVER_DESTINATIONS=",".join(both)).destinations == both


def test_everything_can_be_set() -> None:
    settings = _with(
        HMS_ACCESS_KEY=" key\n",
        HMS_SECRET=" secret\n",
        HMS_API_URL="http://127.0.0.1:8100/v2/",
        ARCHIVER_DESTINATIONS="s3://b/p?endpoint_url=http://h:1&region=r, gs://c/d%2Ce ,/srv/a,",
        ARCHIVER_REDIS_URL="redis://:pw@127.0.0.1:6390/1",
        ARCHIVER_STATE_DIR="/var/lib/archiver",
        ARCHIVER_RETENTION_DAYS="7.5",
        ARCHIVER_TYPES="chat, room-vod",
        ARCHIVER_ROOMS="r1",
        ARCHIVER_KEY_TEMPLATE="{yyyy}/{asset_id}",
        ARCHIVER_VOD_ZIP="Both",
        ARCHIVER_ALLOW_PRIVATE_SOURCES="true",
        ARCHIVER_OWN_PATHS="s3://mine/a,gs://mine",
        ARCHIVER_TRANSFER_MEMORY="1 GiB",
        ARCHIVER_PART_BYTES="16777216",
        ARCHIVER_LOG_LEVEL="debug",
        ARCHIVER_FLOWER_ADDRESS="0.0.0.0",
        ARCHIVER_FLOWER_BASIC_AUTH="me:pw:with:colons",
    )

    assert settings.hms_access_key == "key"
    assert settings.hms_secret == SecretStr("secret")
    assert settings.has_credentials
    assert settings.hms_api_url == "http://127.0.0.1:8100/v2"
    assert settings.destinations == ("s3://b/p?endpoint_url=http://h:1&region=r", "gs://c/d%2Ce", "/srv/a")
    assert settings.redis_url == SecretStr("redis://:pw@127.0.0.1:6390/1")
    assert settings.state_dir == Path("/var/lib/archiver")
    assert settings.retention == timedelta(days=7, hours=12)
    assert settings.types == frozenset({"chat", "room-vod"})
    assert settings.rooms == frozenset({"r1"})
    assert settings.key_template == "{yyyy}/{asset_id}"
    assert settings.vod_zip is VodZip.BOTH
    assert settings.own_paths == ("s3://mine/a", "gs://mine")
    assert (settings.transfer_memory_bytes, settings.part_bytes) == (2**30, 2**24)
    assert settings.log_level == "DEBUG"
    assert settings.flower_address == "0.0.0.0"


def test_a_management_token_alone_is_credentials() -> None:
    assert _with(HMS_MANAGEMENT_TOKEN="a.b.c").has_credentials


def test_a_form_not_filled_in_is_not_set() -> None:
    settings = _with(HMS_SECRET="", ARCHIVER_REDIS_URL="", ARCHIVER_TYPES="", ARCHIVER_SWEEP_SECONDS="")

    assert (settings.hms_secret, settings.redis_url, settings.types) == (None, None, None)
    assert settings.sweep_seconds == 300


@pytest.mark.parametrize("prefix", ["flower", "/flower", "/flower/"])
def test_the_address_of_flower_follows_from_its_settings(prefix: str) -> None:
    there = {"ARCHIVER_FLOWER_ADDRESS": "0.0.0.0", "ARCHIVER_FLOWER_URL_PREFIX": prefix}

    assert flower_url(_with(**there)) == "http://127.0.0.1:5555/flower"
    assert (
        flower_url(_with(ARCHIVER_FLOWER_ADDRESS="::1", ARCHIVER_FLOWER_URL_PREFIX="/"))
        == "http://[::1]:5555"
    )
    assert flower_url(_with(ARCHIVER_FLOWER_PORT="0")) is None, "any free port"


def test_a_filter_of_commas_filters_nothing() -> None:
    assert _with(ARCHIVER_TYPES=" , ").types is None


def test_fields_can_be_given_by_name() -> None:
    settings = Settings(_env_file=None, hms_api_url="http://localhost:1/v2", destinations=("memory://x",))

    assert settings.destinations == ("memory://x",)


@examples(deadline=None)  # a loaded machine
@given(st.integers(min_value=3, max_value=10**6))
def test_two_renewals_of_a_lease_may_fail(seconds: int) -> None:
    settings = Settings(_env_file=None, lease_seconds=seconds)

    assert settings.lease > 3 * settings.lease_renew


# -- .env -----------------------------------------------------------------------------------------------------
def test_dot_env_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ARCHIVER_SWEEP_SECONDS=60\nARCHIVER_DISPATCH_SECONDS=5\n")

    settings = _with(ARCHIVER_DISPATCH_SECONDS="7")

    assert (settings.sweep_seconds, settings.dispatch_seconds) == (60, 7)


def test_a_dot_env_with_a_byte_order_mark_loses_no_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ARCHIVER_SWEEP_SECONDS=60\r\n", "utf-8-sig")

    assert load_settings().sweep_seconds == 60


def test_what_only_the_cloud_sdks_read_reaches_them(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "AWS_ACCESS_KEY_ID=from-file\nAWS_REGION=from-file\nAWS_PROFILE=\nHMS_MANAGEMENT_TOKEN=a.b.c\n"
    )

    _with(AWS_REGION="from-environment")
    load_settings()

    assert os.environ["AWS_ACCESS_KEY_ID"] == "from-file"
    assert os.environ["AWS_REGION"] == "from-environment"
    assert "AWS_PROFILE" not in os.environ  # boto3 would look for a profile without a name
    assert "HMS_MANAGEMENT_TOKEN" not in os.environ


def test_a_dot_env_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"HMS_SECRET=\xff\xfe\n")

    assert ".env cannot be read: it is not UTF-8" in _refused()


# -- names ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("ARCHIVER_DESTINATION", "ARCHIVER_DESTINATIONS"),
        ("ARCHIVER_DESTINATON", "ARCHIVER_DESTINATIONS"),
        ("ARCHIVER_RETENTION", "ARCHIVER_RETENTION_DAYS"),
        ("ARCHIVER_ROOM", "ARCHIVER_ROOMS"),
        ("ARCHIVER_TRANSFER_MEMORY_BYTES", "ARCHIVER_TRANSFER_MEMORY"),
        ("HMS_ACESS_KEY", "HMS_ACCESS_KEY"),
        ("ARCHIVER_HMS_SECRET", "HMS_SECRET"),
        ("archiver_destination", "ARCHIVER_DESTINATIONS"),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_a_misspelt_name_is_refused_with_the_right_one(
    tmp_path: Path, misspelt: str, meant: str, in_file: bool
) -> None:
    if in_file:
        (tmp_path / ".env").write_text(f"{misspelt}=MARKED\n")
        message = _refused()
    else:
        message = _refused(**{misspelt: "MARKED"})

    assert f"{misspelt.upper()}: there is no such setting; did you mean {meant}?" in message
    assert "MARKED" not in message


def test_a_name_like_ours_that_is_no_typo_is_told_not_refused() -> None:
    settings = _with(ARCHIVER_IMAGE_TAG="v3")

    [warning] = settings.warnings
    assert "ARCHIVER_IMAGE_TAG is set, and no setting of this version; the nearest is ARCHIVER_" in warning


def test_other_programs_variables_are_none_of_our_business() -> None:
    assert _with(MY_ARCHIVER_DESTINATION="x", HMSX="y").warnings == ()


def test_what_kubernetes_injects_for_its_services_stops_nothing() -> None:
    links = {
        f"{service}_{rest}": value
        for service in (
            "REDIS",
            "FLOWER",
            "ARCHIVER",
            "ARCHIVER_REDIS",
            "ARCHIVER_FLOWER",
            "HMS",
            "HMS_SIMULATOR",
        )
        for rest, value in {
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "6379",
            "SERVICE_PORT_HTTP": "6379",
            "PORT": "tcp://10.0.0.1:6379",
            "PORT_6379_TCP": "tcp://10.0.0.1:6379",
            "PORT_6379_TCP_ADDR": "10.0.0.1",
            "PORT_6379_TCP_PORT": "6379",
            "PORT_6379_TCP_PROTO": "tcp",
        }.items()
    }

    settings = _with(**links)

    assert settings.flower_port == 5555
    assert settings.warnings == ()
    assert "FLOWER_PORT" not in os.environ, "Flower reads it too, and would not start"


def test_a_port_that_somebody_chose_is_kept() -> None:
    assert _with(ARCHIVER_FLOWER_PORT="7777", FLOWER_PORT="8888").flower_port == 7777
    assert os.environ["FLOWER_PORT"] == "8888"


# -- bad values -----------------------------------------------------------------------------------------------
BAD = [
    # variable, value, what is said of it
    ("HMS_API_URL", "api.100ms.live/v2", "no plain http(s) URL"),
    ("HMS_API_URL", "ftp://api.100ms.live/v2", "no plain http(s) URL"),
    ("HMS_API_URL", "https://user:MARKED@api.100ms.live/v2", "no user, no query"),
    ("HMS_API_URL", "https://api.100ms.live/v2?token=MARKED", "no user, no query"),
    ("HMS_API_URL", "http://api.100ms.live/v2", "would show the token to everybody"),
    ("HMS_API_URL", "http://10.0.0.1/v2", "would show the token to everybody"),
    ("HMS_API_URL", "http://[::1/v2", "no plain http(s) URL"),
    ("HMS_ACCESS_KEY", "two words", "copy it again"),
    ("HMS_SECRET", "MARKED secret", "copy it again"),
    ("HMS_MANAGEMENT_TOKEN", "MARKEDß", "copy it again"),
    ("ARCHIVER_DESTINATIONS", ",", "names no destination"),
    ("ARCHIVER_DESTINATIONS", "s3//bucket", "has no scheme"),
    ("ARCHIVER_DESTINATIONS", "s3://key:MARKED@bucket", "a destination URL holds no credentials"),
    (
        "ARCHIVER_DESTINATIONS",
        "s3://bucket?secret_key=MARKED",
        "a destination URL holds no credentials",
    ),
    ("ARCHIVER_DESTINATIONS", "s3://a/b,s3://a/b/", "names s3://a/b twice"),
    (
        "ARCHIVER_DESTINATIONS",
        "s3://a?endpoint_url=http://h:1,s3://a?endpoint_url=https://h:1",
        "names s3://a (h:1) twice",
    ),
    ("ARCHIVER_REDIS_URL", "127.0.0.1:6379", "no Redis URL"),
    ("ARCHIVER_REDIS_PREFIX", "a:b", "without a colon"),
    ("ARCHIVER_REDIS_PREFIX", "a*", "no prefix of keys"),
    ("ARCHIVER_REDIS_URL", "amqp://u:MARKED@h", "no Redis URL"),
    ("ARCHIVER_REDIS_URL", "redis://:MARKED/x@h:6379/0", "%2F for /"),
    ("ARCHIVER_REDIS_URL", "redis://:MARKED@", "no Redis URL"),
    ("ARCHIVER_REDIS_URL", "redis://:MARKED@h:port/0", "no Redis URL"),
    ("ARCHIVER_RETENTION_DAYS", "0", "must be greater than 0"),
    ("ARCHIVER_RETENTION_DAYS", "inf", "must be a finite number"),
    ("ARCHIVER_RETENTION_DAYS", "0.001", "could come and go between two sweeps"),
    ("ARCHIVER_SWEEP_SECONDS", "5m", "must be a valid integer"),
    ("ARCHIVER_SWEEP_SECONDS", "-1", "must be greater than or equal to 1"),
    ("ARCHIVER_KEY_TEMPLATE", "recordings/{room_id}", "{asset_id} must be in it"),
    ("ARCHIVER_KEY_TEMPLATE", "{room_id}-{asset_id}", "a segment of its own"),
    ("ARCHIVER_KEY_TEMPLATE", "{asset_id.__class__}", "no field"),
    ("ARCHIVER_KEY_TEMPLATE", "manifests/{asset_id}", "uses itself"),
    ("ARCHIVER_VOD_ZIP", "zip", "'unpack', 'keep' or 'both'"),
    ("ARCHIVER_ALLOW_PRIVATE_SOURCES", "perhaps", "must be a valid boolean"),
    ("ARCHIVER_OWN_PATHS", "my-bucket/hms", "with its scheme"),
    ("ARCHIVER_OWN_PATHS", "s3://mine?x=MARKED", "with its scheme"),
    ("ARCHIVER_TRANSFER_MEMORY", "lots", "must be a size such as 256MiB"),
    ("ARCHIVER_TRANSFER_MEMORY", "1MiB", "must be greater than or equal to 33554432"),
    ("ARCHIVER_PART_BYTES", "128MiB", "at least 512.0MiB"),
    ("ARCHIVER_PART_BYTES", "1MiB", "must be greater than or equal to 5242880"),
    ("ARCHIVER_PART_BYTES", "6000001", "no multiple of 256KiB"),
    ("ARCHIVER_LEASE_SECONDS", "1", "must be greater than or equal to 3"),
    ("ARCHIVER_RETRY_BASE_SECONDS", "7200", "is more than ARCHIVER_RETRY_MAX_SECONDS (3600)"),
    ("ARCHIVER_PRESIGN_SECONDS", "864000", "must be less than or equal to 604800"),
    ("ARCHIVER_LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ("ARCHIVER_LOG_FORMAT", "xml", "'console' or 'json'"),
    ("ARCHIVER_FLOWER_PORT", "70000", "must be less than or equal to 65535"),
    ("ARCHIVER_FLOWER_BASIC_AUTH", "MARKED", "is not user:password"),
    ("ARCHIVER_SERVE_PORT", "70000", "must be less than or equal to 65535"),
    ("ARCHIVER_METRICS_PORT", "tcp", "must be a valid integer"),
    ("ARCHIVER_WEBHOOK_SECRET", "MARKED", "16 to 512 visible ASCII characters"),
    ("ARCHIVER_WEBHOOK_SECRET", "MARKED with-some-spaces-in-it", "16 to 512 visible ASCII characters"),
    ("ARCHIVER_WEBHOOK_HEADER", "X-Secret:", "is not the name of an HTTP header"),
    ("ARCHIVER_FLOWER_URL_PREFIX", "https://tools.example/flower", "is no path such as /flower"),
]
_BY_RELATION = {
    # what is missing or too small is named, rather than what was given
    ("ARCHIVER_RETENTION_DAYS", "0.001"): "ARCHIVER_SWEEP_SECONDS",
    ("ARCHIVER_PART_BYTES", "128MiB"): "ARCHIVER_TRANSFER_MEMORY",
}


@pytest.mark.parametrize(("name", "value", "result"), BAD)
def test_a_bad_value_is_refused_by_name_and_a_secret_is_never_shown(
    name: str, value: str, result: str
) -> None:
    os.environ[name] = value

    with pytest.raises(SettingsError) as refused:
        load_settings()

    lines = [line for line in str(refused.value).splitlines() if result in line]
    assert len(lines) == 1
    assert lines[0].strip().startswith(f"{_BY_RELATION.get((name, value), name)}: ")
    assert "MARKED" not in "".join(traceback.format_exception(refused.value))


def test_all_that_is_wrong_is_said_at_once() -> None:
    message = _refused(ARCHIVER_SWEEP_SECONDS="x", ARCHIVER_VOD_ZIP="y", ARCHIVER_DESTINATION="z")

    for name in ("ARCHIVER_SWEEP_SECONDS", "ARCHIVER_VOD_ZIP", "ARCHIVER_DESTINATION"):
        assert f"  {name}: " in message
    assert ".env.example" in message


def test_a_relation_names_all_that_breaks() -> None:
    message = _refused(HMS_ACCESS_KEY="key", ARCHIVER_RETRY_BASE_SECONDS="10", ARCHIVER_RETRY_MAX_SECONDS="9")

    assert "HMS_SECRET: is missing" in message
    assert "ARCHIVER_RETRY_BASE_SECONDS: 10 is more than" in message


def test_a_bad_number_is_explained_with_unit_default_and_reason() -> None:
    message = _refused(ARCHIVER_SWEEP_SECONDS="5m")

    assert "It is: Seconds between two sweeps (listing the API's assets). Default 300" in message


@pytest.mark.parametrize(
    ("given_one", "missing"), [("HMS_ACCESS_KEY", "HMS_SECRET"), ("HMS_SECRET", "HMS_ACCESS_KEY")]
)
def test_half_given_credentials_are_refused_by_the_name_of_the_other_half(
    given_one: str, missing: str
) -> None:
    assert f"{missing}: is missing" in _refused(**{given_one: "MARKED"})


def test_plain_http_is_fine_in_a_private_network_when_it_was_said_so() -> None:
    settings = _with(HMS_API_URL="http://simulator:8100/v2", ARCHIVER_ALLOW_PRIVATE_SOURCES="1")

    assert settings.hms_api_url == "http://simulator:8100/v2"


# -- what is odd ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given_ones", "warning"),
    [
        ({"ARCHIVER_TYPES": "chat,room-compsite"}, "names 'room-compsite', which 100ms does not document"),
        ({"HMS_API_URL": "https://api.test"}, "HMS_API_URL has no path"),
        ({"ARCHIVER_RETENTION_DAYS": "2"}, "every asset counts as at risk"),
        (
            {"HMS_ACCESS_KEY": "k", "HMS_SECRET": "s", "HMS_MANAGEMENT_TOKEN": "a.b.c"},
            "HMS_MANAGEMENT_TOKEN is not used",
        ),
    ],
)
def test_what_is_odd_is_told_and_not_refused(given_ones: dict[str, str], warning: str) -> None:
    [found] = _with(**given_ones).warnings

    assert warning in found


# -- secrets --------------------------------------------------------------------------------------------------
def test_no_secret_is_in_a_repr() -> None:
    settings = _with(
        HMS_ACCESS_KEY="MARKED-1",
        HMS_SECRET="MARKED-2",
        HMS_MANAGEMENT_TOKEN="MARKED.3.x",
        ARCHIVER_REDIS_URL="redis://:MARKED-4@h:1/0",
        ARCHIVER_FLOWER_BASIC_AUTH="me:MARKED-5",
    )

    assert "MARKED" not in f"{settings!r} {settings}"


def test_settings_do_not_change_under_a_running_process() -> None:
    settings = load_settings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.sweep_seconds = 5  # type: ignore[misc]


# -- .env.example ---------------------------------------------------------------------------------------------
def _blocks() -> dict[str, tuple[str, str]]:
    """Variable -> the comment above it in one line, and its value."""
    found = {}
    comment: list[str] = []
    for line in EXAMPLE.read_text().splitlines():
        if assigned := re.fullmatch(r"#([A-Z_]+)=(.*)", line):
            found[assigned[1]] = (" ".join(comment), assigned[2])
        elif line.startswith("# ") and not line.startswith("# ----"):
            comment.append(line.removeprefix("# ").strip())
            continue
        comment = []
    return found


def test_the_example_file_documents_exactly_the_settings() -> None:
    assert list(_blocks()) == list(variables())


def test_the_example_file_says_of_each_what_its_description_says() -> None:
    result = {name: comment for name, (comment, _) in _blocks().items()}

    described = {
        name: Settings.model_fields[field].description for name, field in variables().items()
    }  # unit, default, reason
    assert result == described


def test_the_example_file_changes_nothing_when_all_of_it_is_used(tmp_path: Path) -> None:
    lines = [f"{name}={value}" for name, (_, value) in _blocks().items()]
    (tmp_path / "all.env").write_text("\n".join(lines))

    used = load_settings(tmp_path / "all.env")

    assert used == load_settings()
    given = {name for name, (_, value) in _blocks().items() if value}
    assert {variables()[name] for name in given} == used.model_fields_set


def test_every_default_that_is_a_value_stands_in_the_example_file() -> None:
    blocks = _blocks()

    without_value = {name for name, (_, value) in blocks.items() if not value}

    assert without_value == {
        name for name, field in variables().items() if Settings.model_fields[field].default in (None, ())
    }


def test_every_description_tells_the_default() -> None:
    for field in Settings.model_fields.values():
        assert re.search(r"\b(Default|No default)\b", field.description or "")


# -- a file of destinations ------------------------------------------------------------------------------------
def test_destinations_may_stand_in_a_file_with_their_options(tmp_path: Path) -> None:
    file = tmp_path / "destinations.toml"
    file.write_text(
        """
        [[destination]]
        url = "s3://bucket/prefix?region=eu-west-1"
        bucket_key = true
        lock_days = 30
        tags = ["room", "team=a&b"]
        kms_context = {department = "media", tier = 1}

        [[destination]]
        url = "/srv/archive"
        """
    )

    first, second = _with(ARCHIVER_DESTINATIONS_FILE=str(file)).destinations

    assert second == "/srv/archive"
    assert parse_destination(first).options == {
        "region": "eu-west-1",
        "bucket_key": "true",
        "lock_days": "30",
        "tags": "room;team=a&b",
        "kms_context": "department=media;tier=1",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names no destination"),
        ("[[destinations]]\nurl='s3://b'", "unknown table 'destinations'; did you mean [[destination]]?"),
        ("[[destination]]", "destination 1 has no url"),
        ("[destination]\nurl='s3://b'", "names no destination; write [[destination]]"),
        ("[[destination]", "is not TOML"),
        ("[[destination]]\nurl='/srv'\nregion='r'", "is a directory, which has no options"),
        ("[[destination]]\nurl='s3://b/p'\ntags=[[1]]", "destination 's3://b/p': tags is a text, a number"),
        ("[[destination]]\nurl='s3://b'\nsecret_key='MARKED'", "holds no credentials"),
        ("[[destination]]\nurl='s3://b?region=a'\nregion='b'", "an option is given twice"),
        ("[[destination]]\nurl='s3://b'\n[[destination]]\nurl='s3://b'", "names s3://b twice"),
    ],
)
def test_a_bad_file_of_destinations_is_refused_by_name(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "destinations.toml"
    file.write_text(content)

    with pytest.raises(SettingsError) as error:
        _with(ARCHIVER_DESTINATIONS_FILE=str(file))

    assert message in str(error.value)
    assert "MARKED" not in str(error.value)


def test_destinations_are_in_one_place(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ARCHIVER_DESTINATIONS is set too"):
        _with(ARCHIVER_DESTINATIONS_FILE=str(tmp_path / "none"), ARCHIVER_DESTINATIONS="./archive")
    del os.environ["ARCHIVER_DESTINATIONS"]
    with pytest.raises(SettingsError, match="none cannot be read: No such file"):
        _with(ARCHIVER_DESTINATIONS_FILE=str(tmp_path / "none"))
