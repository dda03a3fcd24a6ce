import json

import pytest

from smoke.messages import Identity, Message, checksum, decode, encode


def test_a_body_is_exactly_content_and_time() -> None:
    assert json.loads(encode(Message("hello", 12.5))) == {"content": "hello", "time": 12.5}


@pytest.mark.parametrize("content", ["hello", "", "a/b", "späße 🐇", "two\nlines", "\udc80"])
def test_a_message_survives_the_journey(content: str) -> None:
    assert decode(encode(Message(content, 1700000000.25))) == Message(content, 1700000000.25)


def test_a_whole_number_is_a_time() -> None:
    assert decode(b'{"content": "x", "time": 3}') == Message("x", 3.0)


def test_fields_we_do_not_know_are_ignored() -> None:
    assert decode(b'{"content": "x", "time": 3, "colour": "red"}') == Message("x", 3.0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"\xff\xfe",
        b"[]",
        b'"x"',
        b'{"content": "x"}',
        b'{"time": 1.0}',
        b'{"content": 1, "time": 1.0}',
        b'{"content": "x", "time": "1.0"}',
        b'{"content": "x", "time": true}',
        b'{"content": "x", "time": NaN}',
        b"[" * 100_000,
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"not JSON|not a JSON object|no string|no number"):
        decode(body)


def test_a_checksum_is_of_the_body_and_of_the_identity() -> None:
    assert checksum("p/1/1", b"body") == checksum("p/1/1", b"body")
    assert len({checksum("p/1/1", b"body"), checksum("p/1/1", b"bodY"), checksum("p/1/2", b"body")}) == 3


def test_an_identity_survives_the_journey() -> None:
    assert Identity.parse(str(Identity("steady-1a2b", 17, 3))) == Identity("steady-1a2b", 17, 3)


@pytest.mark.parametrize("message_id", [None, "", "a", "a/1", "a/1/x", "a/-1/1", "/1/1", "a/1/1/1", "a/²/1"])
def test_a_foreign_message_id_is_no_identity(message_id: str | None) -> None:
    assert Identity.parse(message_id) is None
