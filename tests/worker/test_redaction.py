from __future__ import annotations

import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

import worker.logs.redaction
from worker.logs.redaction import LEAST_LENGTH, redact, remember_secrets, secrets_of
from worker.settings import Settings

MARK = "MARKED"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJhY2Nlc3Nfa2V5IjoieCJ9.MARKEDsignature-_"


@pytest.fixture(autouse=True)
def _knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.logs.redaction, "_known", frozenset())
    monkeypatch.setattr(worker.logs.redaction, "_known_pattern", None)


SEEN = [
    # what was logged, what is left
    ("GET https://h.test/a/b.mp4?X-Amz-Signature=MARKED HTTP/1.1", "GET https://h.test/a/b.mp4?[redacted] HTTP/1.1"),
    ("Max retries exceeded with url: /k?sig=MARKED (x)", "Max retries exceeded with url: /k?[redacted] (x)"),
    ("https://cdn.test/p?MARKED", "https://cdn.test/p?[redacted]"),
    ("https://cdn.test/p#access_token=MARKED", "https://cdn.test/p#access_token=[redacted]"),
    ("redis://:MARKED@127.0.0.1:6379/0", "redis://[redacted]@127.0.0.1:6379/0"),
    ("https://user:MARKED@h.test/p", "https://[redacted]@h.test/p"),
    ("https://proxy.test/https%3A%2F%2Fh%3Fsig%3DMARKED end", "https://proxy.test/https%3A%2F%2Fh%3F[redacted] end"),
    ("Authorization: Bearer MARKED", "Authorization: [redacted]"),
    ("[(b'Authorization', b'Bearer MARKED')]", "[(b'Authorization', b'[redacted]"),
    ("{'authorization': 'AWS4-HMAC-SHA256 Credential=x, Signature=MARKED'}", "{'authorization': [redacted]"),
    ("sent bearer MARKED", "sent bearer [redacted]"),
    ("Cookie: CloudFront-Policy=MARKED; CloudFront-Signature=MARKED", "Cookie: [redacted]"),
    ("CloudFront-Signature=MARKED; next", "CloudFront-Signature=[redacted]; next"),
    ("x-amz-security-token: MARKED", "x-amz-security-token: [redacted]"),
    ('{"X-Amz-Credential":"MARKED","a":1}', '{"X-Amz-Credential":"[redacted]","a":1}'),
    ("(b'x-goog-signature', b'MARKED')", "(b'x-goog-signature', b'[redacted]')"),
    ("hdnts=exp=1~acl=/*~hmac=MARKED", "hdnts=[redacted]"),
    (f"token {JWT} was refused", "token [redacted] was refused"),
    (f'"{JWT}"', '"[redacted]"'),
    (f"a\\\\n{JWT}\\\\nb", "a\\\\n[redacted]\\\\nb"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "left"), SEEN)
def test_what_looks_like_a_secret_is_taken_out(text: str, left: str) -> None:
    assert redact(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "archived 64f1c0ffee of room-composite in 12.5 s",
        "s3://bucket/prefix/recordings/r1/s1/room-composite/a1/Rec-r1-1677743067.mp4",
        "https://api.100ms.live/v2/recording-assets",
        "100ms API, GET /recording-assets/a%2Fb/presigned-url: answered 404 (not found; request id r-9)",
        "is HMS_API_URL right, with its /v2?",
        "cannot connect (is it up?). Start it",
        "x-amz-request-id: 4442587FB7D0A2F9",
        "write to ops@example.test about gs://bucket",
        "redis://127.0.0.1:6379/0",
        "etag 9bb58f26192e4ba00f01e2e7b136bbd8",
    ],
)
def test_what_a_tired_engineer_needs_is_left(text: str) -> None:
    assert redact(text) == text


secret_text = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=LEAST_LENGTH, max_size=40
)


@given(secret_text, st.text(max_size=10), st.text(max_size=10))
def test_a_known_value_is_taken_out_however_it_is_written(secret: str, before: str, after: str) -> None:
    worker.logs.redaction._known = frozenset()  # hypothesis calls this many times in one test
    remember_secrets([secret])

    for written in (
        secret,
        json.dumps({"key": secret}),
        json.dumps([secret], ensure_ascii=False),
        repr([secret]),
        f"/path/{quote(secret, safe='')}/x",
        f"/path/{quote_plus(secret)}/x",
    ):
        assert secret not in redact(before + written + after).replace("[redacted]", "\0")


def test_a_value_that_contains_another_is_taken_out_whole() -> None:
    remember_secrets(["secret", "secret-and-more"])

    assert redact("a secret-and-more b") == "a [redacted] b"


def test_very_short_values_do_not_shred_the_log() -> None:
    remember_secrets(["a", ""])

    assert redact("an asset") == "an asset"


@given(st.text(st.sampled_from("aZ0?=&%3Ff:/@#\"' \n.-eyJ[]")), st.sampled_from([row[0] for row in SEEN]))
def test_doing_it_twice_changes_nothing_more(noise: str, text: str) -> None:
    for once in (redact(noise), redact(noise + text), redact(text + noise)):
        assert redact(once) == once


signature = st.text("abcXYZ019-_.~%/+=&;,:!$()*'\"<>[]{}|\\", max_size=30)


@given(
    st.sampled_from(["https://h.test/a/b.mp4", "http://127.0.0.1:9/x", "/a/b.mp4", "https://h.test", "x"]),
    signature,
    signature,
    st.sampled_from(
        ["{}", "url={}", "'{}'", '"{}"', "({})", "<{}>", '{{"url":"{}"}}', "a\n{}\nb", "{} HTTP/1.1"]
    ),
)
def test_no_query_survives_whatever_it_holds_and_wherever_it_stands(
    url: str, before: str, after: str, place: str
) -> None:
    text = place.format(f"{url}?{before}{MARK}{after}")

    assert MARK not in redact(text)
    assert MARK not in redact(json.dumps({"text": text}))
    assert MARK not in redact(repr(text))


PIECES = [
    "Authorization",
    "cookie",
    "bearer",
    "x-amz-token",
    "token",
    "eyJ",
    "abcdefgh",
    "://",
    "@",
    "%3f",
    *"?:=.,'\" \n",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_the_quick_look_at_a_text_hides_nothing_from_the_patterns(text: str) -> None:
    worker.logs.redaction._known, worker.logs.redaction._known_pattern = frozenset(), None
    expected = text
    for pattern, replacement in worker.logs.redaction._PATTERNS:
        expected = pattern.sub(replacement, expected)
    expected = worker.logs.redaction._DOTTED.sub(worker.logs.redaction._without_jwt, expected)

    assert redact(text) == expected


@pytest.mark.parametrize(
    "piece", ["?", "://", "%3f", "a", "x-amz-", "eyJ", "bearer ", "?a", "://#", "cookie:", "sig=", "\\", '"']
)
def test_no_text_takes_long(piece: str) -> None:
    """Two seconds are a hundred times what it takes; a pattern that backtracks would take hours."""
    began = time.process_time()

    redact(piece * (200_000 // len(piece)))

    assert time.process_time() - began < 2


def test_every_secret_of_the_settings_and_of_the_sdks_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "MARKED-aws")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "MARKED-session")
    settings = Settings(
        _env_file=None,
        hms_access_key="MARKED-key",
        hms_secret=SecretStr("MARKED-secret"),
        hms_management_token=SecretStr("MARKED-token"),
        redis_url=SecretStr("redis://:MARKED%2Fredis@h:6379/0"),
        flower_basic_auth=SecretStr("me:MARKED-flower"),
    )

    remember_secrets(secrets_of(settings))

    for name in ("aws", "session", "key", "secret", "token", "flower"):
        assert redact(f"it is MARKED-{name}, is it") == "it is [redacted], is it"
    for password in ("MARKED/redis", "MARKED%2Fredis"):
        assert redact(f"it is {password}") == "it is [redacted]"


def test_every_secret_setting_is_among_the_secrets() -> None:
    """A new SecretStr field that `secrets_of` forgets fails here."""
    fields = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
    for name in fields:
        urls = {
            "redis_url": "redis://:MARKED@h:1/0",
            "heartbeat_url": "https://h/MARKED",
            "event_url": "https://h/MARKED",
            "event_secret": "MARKED" * 8,
            "alert_urls": "slack://MARKED",
            "webhook_secret": "MARKED" * 8,
            "statement_key": "MARKED" * 7 + "A=",
            "statement_tsa_url": "https://h/MARKED",
        }
        value = urls.get(name, "u:MARKED")
        beside = {"hms_secret": {"hms_access_key": "key"}, "event_url": {"event_secret": "A" * 32}}
        needed = beside.get(name, {})
        settings = Settings.model_validate({name: value, **needed})

        assert any(MARK in secret for secret in secrets_of(settings)), name
