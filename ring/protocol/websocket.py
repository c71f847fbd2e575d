"""The WebSocket codec: RFC 6455 for both roles, without I/O and without extensions.

`Decoder` turns the bytes of one connection into messages and control frames; the functions beside it write
frames. The transport calls both for every message of the node, so the shape of the code follows what was
measured: whole frames are cut straight out of the received bytes, everything else takes the careful path.
"""

from codecs import utf_8_decode
from collections.abc import Callable
from os import urandom
from struct import Struct
from typing import Literal

from ring.protocol.codes import CloseCode

TEXT = 1
BINARY = 2
CLOSE = 8
PING = 9
PONG = 10

_CONTINUATION = 0
_DATA_OPCODES = frozenset({_CONTINUATION, TEXT, BINARY})
_CONTROL_OPCODES = frozenset({CLOSE, PING, PONG})
_FIN = 0x80
_RESERVED_BITS = 0x70
_MASKED = 0x80
_WHOLE_TEXT = _FIN | TEXT
_WHOLE_BINARY = _FIN | BINARY
_MASKED_HEADER = 6  # bytes of a short masked frame before its payload
_LENGTH_16 = 126  # announce a length of 16 or of 64 bits (RFC 6455 section 5.2)
_LENGTH_64 = 127
_CONTROL_BYTES = 125
_REASON_BYTES = _CONTROL_BYTES - 2

_pack_short = Struct("!BB").pack
_pack_medium = Struct("!BBH").pack
_pack_long = Struct("!BBQ").pack
_pack_code = Struct("!H").pack

_WIRE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
"""The close codes that may be sent: RFC 6455 section 7.4 and the IANA registry's 1012 to 1014."""


def mask_in_python(data: bytes, mask: bytes) -> bytes:
    """Masks `data` with the four bytes of `mask` where there is no C routine; masking again undoes it."""
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


def _find_masking() -> Callable[[bytes, bytes], bytes]:
    try:
        from websockets.speedups import apply_mask
    except ImportError:  # a platform for which websockets has no wheel
        return mask_in_python
    return apply_mask


apply_mask = _find_masking()


class ProtocolViolation(Exception):
    """The other side broke RFC 6455 or the size that we read; the connection ends with a close frame.

    No `RingError`: it is answered by a close code and a reason, never by an error code.

    Attributes:
        code: what to close with: 1002, 1007 or 1009.
        reason: one line for the close frame.
        messages: what was complete before the violation; it is still to be handled.
    """

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.messages: list[tuple[int, bytes]] = []


class Decoder:
    """The receiving side of one connection.

    Args:
        role: whose side we are. A server's decoder requires masked frames, a client's refuses them.
        max_message: bytes of the longest message that is read, fragments together.

    It holds at most `max_message` bytes of an unfinished message and one frame header or control frame,
    however many fragments or reads the message comes in.
    """

    __slots__ = (
        "_final",
        "_limit",
        "_mask",
        "_mask_bit",
        "_message",
        "_missing",
        "_opcode",
        "_over",
        "_rest",
        "_short",
        "_tail",
    )

    def __init__(self, *, role: Literal["server", "client"], max_message: int) -> None:
        self._mask_bit = _MASKED if role == "server" else 0
        self._limit = max_message
        self._short = min(max_message, _LENGTH_16 - 1) if role == "server" else -1
        self._over = False  # after a close frame or a violation nothing is read any more
        self._rest = b""  # an unfinished header or control frame
        self._message: bytearray | None = None  # the unfinished message, unmasked
        self._opcode = 0  # of the unfinished message
        self._tail = b""  # its last bytes, while they are an unfinished UTF-8 character
        self._missing = 0  # bytes of the unfinished data frame that have not come
        self._final = False  # that frame is the last of its message
        self._mask = b""  # that frame's, rotated to the next byte

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The messages and control frames that `data` completes, as (opcode, payload), in order.

        The payload of a close frame is raw (`parse_close` reads it). What follows a close frame or a
        violation is ignored: later calls return an empty list.

        Raises:
            ProtocolViolation: with code 1002, 1007 or 1009.
        """
        # What most reads bring to a server: one short text, whole and alone.
        length = len(data) - _MASKED_HEADER
        if (
            0 <= length <= self._short
            and data[1] == length | _MASKED
            and data[0] == _WHOLE_TEXT
            and self._message is None
            and not self._rest
            and not self._over
        ):
            payload = apply_mask(data[_MASKED_HEADER:], data[2:_MASKED_HEADER])
            if payload.isascii():
                return [(TEXT, payload)]
        messages: list[tuple[int, bytes]] = []
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position, end = 0, len(data)
        try:
            while position < end and not self._over:
                if self._message is None:
                    position = self._take_whole(data, position, end, messages)
                    if position == end:
                        break
                if self._missing:
                    position = self._take_payload(data, position, messages)
                else:
                    position = self._take_frame(data, position, end, messages)
        except ProtocolViolation as violation:
            self._over = True
            self._message = None
            violation.messages = messages
            raise
        return messages

    def _take_whole(self, data: bytes, position: int, end: int, messages: list[tuple[int, bytes]]) -> int:
        """The hot path: takes whole, unfragmented data frames; returns where another kind starts."""
        mask_bit, limit = self._mask_bit, self._limit
        while end - position > 1:
            first = data[position]
            if first != _WHOLE_TEXT and first != _WHOLE_BINARY:
                break
            length = data[position + 1] ^ mask_bit  # beyond 127 if the mask bit is not as it must be
            body = position + 2
            if length >= _LENGTH_16:
                if length != _LENGTH_16 or end - body < 2:
                    break
                length = data[body] << 8 | data[body + 1]
                body += 2
                if length < _LENGTH_16:
                    break
            if mask_bit:
                body += 4
            stop = body + length
            if stop > end or length > limit:
                break
            payload = data[body:stop]
            if mask_bit:
                payload = apply_mask(payload, data[body - 4 : body])
            if first == _WHOLE_TEXT and not payload.isascii():
                _check_utf8(payload)
            messages.append((first & 15, payload))
            position = stop
        return position

    def _take_frame(self, data: bytes, position: int, end: int, messages: list[tuple[int, bytes]]) -> int:
        """Takes a frame of any kind, or what there is of it; returns where it stopped reading."""
        body = position + 2
        if end < body:
            return self._keep(data, position)
        first, second = data[position], data[position + 1]
        opcode = first & 15
        self._check_start(first, second, opcode)
        length = second & 127
        if length >= _LENGTH_16:
            body += 2 if length == _LENGTH_16 else 8
            if end < body:
                return self._keep(data, position)
            length = _read_length(data[position + 2 : body])
        if opcode < CLOSE and length + len(self._message or b"") > self._limit:
            raise ProtocolViolation(CloseCode.TOO_BIG, f"a message of more than {self._limit} bytes")
        mask_at = body
        if self._mask_bit:
            body += 4
        if end < body:
            return self._keep(data, position)
        mask = data[mask_at:body]
        if opcode >= CLOSE:
            stop = body + length
            if end < stop:
                return self._keep(data, position)
            payload = data[body:stop]
            messages.append((opcode, apply_mask(payload, mask) if mask else payload))
            self._over = opcode == CLOSE
            return stop
        if self._message is None:
            self._message = bytearray()
            self._opcode = opcode
        self._missing = length
        self._final = first >= _FIN
        self._mask = mask
        return self._take_payload(data, body, messages)

    def _keep(self, data: bytes, position: int) -> int:
        """Keeps an unfinished header or control frame until more comes."""
        self._rest = data[position:]
        return len(data)

    def _check_start(self, first: int, second: int, opcode: int) -> None:
        """Checks all that a frame's first two bytes show, as soon as they are there."""
        if first & _RESERVED_BITS:
            raise _broken("a reserved bit is set, and no extension was agreed")
        if second & _MASKED != self._mask_bit:
            raise _broken(
                "a client's frame must be masked" if self._mask_bit else "a server's frame is masked"
            )
        if opcode in _CONTROL_OPCODES:
            if first < _FIN:
                raise _broken("a control frame is fragmented")
            if second & 127 > _CONTROL_BYTES:
                raise _broken(f"a control frame of more than {_CONTROL_BYTES} bytes")
        elif opcode not in _DATA_OPCODES:
            raise _broken(f"opcode {opcode} is reserved")
        elif opcode == _CONTINUATION:
            if self._message is None:
                raise _broken("a continuation of nothing")
        elif self._message is not None:
            raise _broken("a new message inside a fragmented one")

    def _take_payload(self, data: bytes, position: int, messages: list[tuple[int, bytes]]) -> int:
        """Takes what there is of the data frame whose header was read; returns where it stopped reading."""
        message = self._message
        assert message is not None
        chunk = data[position : position + self._missing]
        size = len(chunk)
        self._missing -= size
        if self._mask:
            chunk = apply_mask(chunk, self._mask)
            turn = size & 3
            self._mask = self._mask[turn:] + self._mask[:turn]
        complete = self._final and not self._missing
        if self._opcode == TEXT and (self._tail or not chunk.isascii()):
            checked = self._tail + chunk
            self._tail = checked[_check_utf8(checked, complete) :]
            if b"\xed\xa0" <= self._tail < b"\xee":  # the start of a surrogate, for which Python waits
                raise _not_utf8()
        message += chunk
        if complete:
            self._message = None
            messages.append((self._opcode, bytes(message)))
        return position + size


def _check_utf8(text: bytes, final: bool = True) -> int:
    """Returns how much of `text` is whole characters; if it is `final`, all must be."""
    try:
        return utf_8_decode(text, "strict", final)[1]
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _read_length(encoded: bytes) -> int:
    """The length that 2 or 8 bytes give."""
    length = int.from_bytes(encoded, "big")
    if length < (_LENGTH_16 if len(encoded) == 2 else 1 << 16):
        raise _broken("a length is not in its shortest form")
    if length >> 63:
        raise _broken("a length of more than 63 bits")
    return length


def _not_utf8() -> ProtocolViolation:
    return ProtocolViolation(CloseCode.INVALID_DATA, "a text message is not UTF-8")


def _broken(reason: str) -> ProtocolViolation:
    return ProtocolViolation(CloseCode.PROTOCOL_ERROR, reason)


def header(opcode: int, length: int) -> bytes:
    """The header of a server's whole frame; the caller sends the payload, unchanged, behind it."""
    if length < _LENGTH_16:
        return _pack_short(_FIN | opcode, length)
    if length < 1 << 16:
        return _pack_medium(_FIN | opcode, _LENGTH_16, length)
    return _pack_long(_FIN | opcode, _LENGTH_64, length)


def encode_frame(opcode: int, payload: bytes, *, mask: bool = False) -> bytes:
    """A whole frame; a client masks it, with bytes that nobody can predict (RFC 6455 section 5.3)."""
    if not mask:
        return header(opcode, len(payload)) + payload
    start = header(opcode, len(payload))
    key = urandom(4)
    return b"".join((start[:1], bytes((start[1] | _MASKED,)), start[2:], key, apply_mask(payload, key)))


def parse_close(payload: bytes) -> tuple[int, str]:
    """The code and the reason of a close frame; 1005 if it carries none.

    Raises:
        ProtocolViolation: 1002 if the code may not be sent or is half there, 1007 if the reason is not UTF-8.
    """
    if not payload:
        return CloseCode.NO_STATUS, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or code not in _WIRE_CODES:
        raise _broken("a close frame without a valid code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolViolation(CloseCode.INVALID_DATA, "the reason of a close frame is not UTF-8") from None


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a close frame, empty for 1005; a `reason` that does not fit is cut at a character.

    Raises:
        ValueError: `code` may not be sent.
    """
    if code == CloseCode.NO_STATUS:
        return b""
    if code not in _WIRE_CODES:
        raise ValueError(f"close code {code} may not be sent")
    text = reason.encode(errors="replace")
    if len(text) > _REASON_BYTES:
        text = text[:_REASON_BYTES].decode(errors="ignore").encode()
    return _pack_code(code) + text
