"""What travels: a JSON body for people, and for the judge an identity, the AMQP property message_id, and a checksum."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass

# The name of the AMQP header that holds the checksum.
CHECKSUM = "checksum"


@dataclass(frozen=True, slots=True)
class Message:
    """The body of a message.

    Attributes:
        content: free text.
        time: when it was made, seconds since the epoch.
    """

    content: str
    time: float

    def __str__(self) -> str:
        return f"{self.content}/{self.time}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which message this is, and which publication of it.

    Publishing an unconfirmed message again makes a duplicate that no broker can avoid; a broker that hands out one
    publication twice without saying so has a fault. Only the attempt tells the two apart.

    Attributes:
        producer: unique per producer instance, without a slash.
        sequence: counts the messages of that producer, from 1.
        attempt: counts the publications of that message, from 1.
    """

    producer: str
    sequence: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.producer}/{self.sequence}/{self.attempt}"

    @classmethod
    def parse(cls, message_id: str | None) -> Identity | None:
        """Read the AMQP property message_id; None for a message that is not one of ours."""
        parts = (message_id or "").split("/")
        if len(parts) != 3 or not parts[0] or not all(part.isascii() and part.isdigit() for part in parts[1:]):
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]))


def encode(message: Message) -> bytes:
    """Return the JSON body, exactly {"content": ..., "time": ...}."""
    return json.dumps({"content": message.content, "time": message.time}).encode()


def checksum(message_id: str, body: bytes) -> str:
    """Return the CRC-32 of a body together with its message_id, so that neither can be exchanged unnoticed."""
    return f"{zlib.crc32(body, zlib.crc32(message_id.encode())):08x}"


def decode(body: bytes) -> Message:
    """Read a JSON body; fields that we do not know are ignored.

    Raises:
        ValueError: the body is not UTF-8 JSON, or lacks a string "content" or a finite number "time".
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    content, time = fields.get("content"), fields.get("time")
    if not isinstance(content, str):
        raise ValueError('no string "content"')
    if isinstance(time, bool) or not isinstance(time, int | float) or not math.isfinite(time):
        raise ValueError('no number "time"')
    return Message(content, float(time))
