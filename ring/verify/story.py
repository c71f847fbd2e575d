"""The whole story of a message, for whoever has to find out what went wrong. Pure."""

import math
from collections.abc import Iterable, Sequence

from ring.verify.record import Device, Message, Windows


def story(
    message: Message | None,
    around: Sequence[tuple[Device, Sequence[tuple[float, str]]]],
    windows: Windows,
    origin: float,
) -> tuple[str, ...]:
    """All that became of a message, and the faults near it, a line each, in order; times from `origin` on.

    Then what happened lately at its recipient's devices. Of a message that is forgotten that is all.
    """
    told = [] if message is None else _life(message, windows, origin)
    for device, lately in around:
        told.append(f"at {device}, lately:")
        told += _lines(lately, origin)
    return tuple(told)


def _life(message: Message, windows: Windows, origin: float) -> list[str]:
    told: list[tuple[float, str]] = []
    for number, write in enumerate(message.writes):
        how = "sent again" if write.again else "sent" if not number else "sent anew"
        told.append((write.at, f"{how} through {write.node} (session {write.session})"))
    for answer in message.answers:
        more = f" by {answer.by}" if answer.by else f": {answer.code}" if answer.code else ""
        told.append((answer.at, f"receipt {answer.status}{more}"))
    for copy in message.copies:
        marked = ", redelivered" if copy.marked else ""
        told.append((copy.at, f"came to {copy.device} (session {copy.session}) as {copy.seq}{marked}"))
        if copy.acknowledged_at < math.inf:
            told.append((copy.acknowledged_at, f"acknowledged by {copy.device} (session {copy.session})"))
    for at, device in message.taken:
        told.append((at, f"taken by the application of {device}"))
    if message.abandoned < math.inf:
        told.append((message.abandoned, "given up by its sender"))
    last = max([message.sent_at, *(at for at, _ in told)])
    for window in windows.near(message.sent_at, last):
        victims = f" of {', '.join(window.victims)}" if window.victims else ""
        detail = f" ({window.detail})" if window.detail else ""
        told.append((window.began, f"--- {window.name}{victims}{detail} begins"))
        if window.healed < math.inf:
            told.append((window.healed, f"--- {window.name} is over"))
    return _lines(sorted(told, key=lambda each: each[0]), origin)


def _lines(told: Iterable[tuple[float, str]], origin: float) -> list[str]:
    return [f"{at - origin:10.3f} s  {words}" for at, words in told]
