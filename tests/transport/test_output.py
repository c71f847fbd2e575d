"""Where a frame ends within what was queued: what remains to be sent of it when the rest is dropped."""

import pytest

from ring.protocol.websocket import BINARY, TEXT, encode_frame
from ring.transport.output import frame_end

SIZES = [0, 1, 125, 126, 65535, 65536]


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"])
def test_frame_end_finds_the_boundary(mask: bool, head: bytes) -> None:
    """For every size of header, with a mask and without, also behind the head of the upgrade."""
    frames = [encode_frame(TEXT if size % 2 else BINARY, bytes(size), mask=mask) for size in SIZES]
    data = head + b"".join(frames)
    assert frame_end(data, 0) == len(head)
    start = len(head)
    for frame in frames:
        end = start + len(frame)
        for offset in (start + 1, start + len(frame) // 2 or start + 1, end - 1, end):
            assert frame_end(data, offset) == end
        start = end
    assert start == len(data)
