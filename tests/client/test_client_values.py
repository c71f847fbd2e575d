"""The values that an application gets."""

import msgspec
import pytest

from ring.client.messages import ConnectionEnded, Message, Receipt
from ring.protocol import client as protocol
from ring.protocol.codes import BadRequest, CloseCode, ErrorCode


def _received(text: bytes, redelivered: bool | msgspec.UnsetType = msgspec.UNSET) -> Message:
    return Message(
        protocol.Message(
            from_="bob", id="m1", seq="1-1", data=msgspec.Raw(text), sent_at=5, redelivered=redelivered
        )
    )


def test_message_has_what_the_frame_had() -> None:
    """Its attributes are the frame's, in the library's words."""
    message = _received(b'{"text": "hello"}')

    assert (message.sender, message.id, message.seq, message.sent_at) == ("bob", "m1", "1-1", 5)
    assert message.redelivered is False
    assert _received(b"1", redelivered=True).redelivered is True
    assert repr(message) == "<ring.Message 1-1 from 'bob', id 'm1', 17 bytes>"


def test_data_is_decoded_once() -> None:
    """It is decoded when asked for, and the same object is given again."""
    message = _received(b'{"text": "hello"}')

    assert message.data == {"text": "hello"}
    assert message.data is message.data


def test_raw_data_decodes_to_a_type() -> None:
    """An application that knows the type decodes the JSON itself."""
    assert msgspec.json.decode(_received(b"[1, 2]").raw, type=tuple[int, int]) == (1, 2)


@pytest.mark.parametrize("text", [b"1e999", b"[" * 200_000 + b"]" * 200_000])
def test_data_that_cannot_be_held_spoils_its_message_alone(text: bytes) -> None:
    """JSON that Python cannot hold is an error where it is looked at, not where it came."""
    message = _received(text)

    with pytest.raises(BadRequest, match="data: cannot be decoded here"):
        _ = message.data


def test_receipt_is_ok_unless_failed() -> None:
    """Delivered and queued are both good ends."""
    assert Receipt("m1", "delivered").ok
    assert Receipt("m1", "queued").ok
    assert not Receipt("m1", "failed", code=ErrorCode.BUSY).ok


@pytest.mark.parametrize(
    ("close_code", "code"),
    [
        (CloseCode.UNAUTHENTICATED, ErrorCode.UNAUTHENTICATED),
        (CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN),
        (CloseCode.TOO_BIG, ErrorCode.TOO_LARGE),
        (CloseCode.REPLACED, ErrorCode.INTERNAL),
        (None, ErrorCode.INTERNAL),
    ],
)
def test_ending_has_an_error_code(close_code: int | None, code: ErrorCode) -> None:
    """Like every error of Ring it has a code of the wire, the nearest to its close code."""
    assert ConnectionEnded("", close_code=close_code).code is code


def test_ending_keeps_the_nodes_code() -> None:
    """Where the node named an error code, it is that."""
    assert ConnectionEnded("", status=401, code=ErrorCode.TOKEN_EXPIRED).code is ErrorCode.TOKEN_EXPIRED
