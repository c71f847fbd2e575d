"""What a client sends before its welcome: kept for then, within bounds."""

EARLY_FRAMES = 256
"""What a client may send before its welcome."""
EARLY_BYTES = 1024 * 1024
"""The same in bytes; one frame is always kept."""


def has_room(kept: list[bytes], payload: bytes) -> bool:
    """True if one more frame may be kept with these."""
    return not kept or (len(kept) < EARLY_FRAMES and sum(map(len, kept)) + len(payload) <= EARLY_BYTES)
