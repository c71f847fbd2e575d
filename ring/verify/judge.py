"""What can be said of a message when it is over: answered in time, forgotten, passed over. Pure."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ring.verify.record import AFTERSHOCK_S, Copy, Device, Message, Windows


@dataclass(frozen=True, slots=True)
class Terms:
    """What the nodes are set to.

    Attributes:
        send_timeout_s: within this a message is answered.
        margin_s: and so much later at the client, on a machine that is busy.
    """

    send_timeout_s: float = 10.0
    margin_s: float = 3.0


def answered_late(message: Message, windows: Windows, terms: Terms, *, ended: bool) -> float | None:
    """When a message was answered, if that was too late: infinite if it never was, and all has `ended`.

    None: it was in time, is still waited for, or nobody waits for it.
    """
    if not message.answers:
        return math.inf if ended and message.abandoned == math.inf else None
    at = message.answers[0].at
    return at if at > _due(message, windows, terms) else None


def _due(message: Message, windows: Windows, terms: Terms) -> float:
    """By when it had to be answered: its sender's node may have been unable to, or its client deaf."""
    patience_s = terms.send_timeout_s + terms.margin_s
    write = message.writes[-1]
    due = max(write.at + patience_s, message.deaf_until + terms.margin_s)
    for window in windows.near(message.sent_at, due):
        if write.node in window.victims:
            due = max(due, window.healed + patience_s)
    return due


def forgotten(message: Message, windows: Windows) -> bool:
    """Whether a message that is owed could be in Redis when that lost what it had stored."""
    if message.due_here or any(answer.status == "delivered" for answer in message.answers):
        return False
    for window in windows:
        if window.forgets and message.sent_at <= window.healed:
            # Answered for the first time when that was over: it was stored then, and into what came after.
            afterwards = len(message.writes) == 1 and message.answers[0].at > window.healed + AFTERSHOCK_S
            if not afterwards:
                return True
    return False


def is_known(one: Copy, another: Copy) -> bool:
    """Whether a device that gets another copy got one in this session; or had acknowledged it, and was told
    at each welcome since then that it goes on from there."""
    device = another.device
    if one.device is not device or one.session == another.session:
        return one.device is device
    return device.unbroken_since <= one.at <= one.acknowledged_at < another.at


def passed_over(
    message: Message, devices: Iterable[Device], windows: Windows
) -> Iterator[tuple[Device, float]]:
    """Devices that should have got it, and when each got a later one in its place, though all was well."""
    for device in devices:
        stream = device.streams.get(message.key.sender)
        passed = stream.passed.get(message.key.n) if stream else None
        if passed is not None:
            at, unbroken_since = passed
            if unbroken_since < message.sent_at and windows.calm(message.sent_at, at):
                yield device, at
