"""The registry of error and close codes, held against the public contract."""

import pytest

from ring.protocol.codes import (
    CLOSINGS,
    BadRequest,
    CloseCode,
    Closing,
    ErrorCode,
    Reaction,
    RingError,
    reaction_to,
)
from ring.protocol.websocket import ProtocolViolation, close_payload, parse_close

# The contract's words, as clients were promised them.
ERRORS = (
    "bad_request, unknown_type, too_large, unauthenticated, token_expired, forbidden, rate_limited, busy, "
    "too_many_rooms, too_many_connections, not_joined, offline, expired, mailbox_full, owner_unavailable, "
    "store_unavailable, rooms_unavailable, internal"
)
RETRYABLE = (
    "rate_limited, busy, too_many_connections, offline, mailbox_full, owner_unavailable, store_unavailable, "
    "rooms_unavailable, internal"
)
REACTIONS = {
    Reaction.STOP: {1000, 1002, 1003, 1007, 1009, 4003, 4009},
    Reaction.RECONNECT: {1001, 1011, 1012, 1013, 4008, 4010},
    Reaction.RECONNECT_SLOWLY: {4029},
    Reaction.NEW_TOKEN: {4001},
}


def test_the_error_codes_are_the_contract() -> None:
    """The list is closed: exactly the promised codes, in the promised order."""
    assert ", ".join(ErrorCode) == ERRORS


def test_what_may_be_tried_again() -> None:
    """Each code says whether the same request may succeed later unchanged."""
    assert ", ".join(code for code in ErrorCode if code.retryable) == RETRYABLE


def test_the_close_codes_are_the_contract() -> None:
    """Every close code that clients meet is tabled with what the client does; no other is."""
    tabled = {
        reaction: {c for c, closing in CLOSINGS.items() if closing.reaction is reaction}
        for reaction in Reaction
    }
    assert tabled == REACTIONS
    assert all(isinstance(closing, Closing) and closing.code == code for code, closing in CLOSINGS.items())


def test_every_close_code_is_documented() -> None:
    """A code is in the table, with one line of meaning, unless clients never get it from a node."""
    untabled = {CloseCode.NO_STATUS, CloseCode.ABNORMAL, CloseCode.POLICY_VIOLATION}
    assert set(CloseCode) - untabled == set(CLOSINGS)
    meanings = [closing.meaning for closing in CLOSINGS.values()]
    assert all(meaning and "\n" not in meaning for meaning in meanings)
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize("code", CLOSINGS)
def test_tabled_codes_can_be_sent(code: int) -> None:
    """What is documented for clients passes the codec."""
    assert parse_close(close_payload(code)) == (code, "")


@pytest.mark.parametrize("code", [CloseCode.NO_STATUS, CloseCode.ABNORMAL])
def test_codes_that_are_never_sent(code: CloseCode) -> None:
    """1005 and 1006 describe how a connection ended and are refused on the wire."""
    with pytest.raises(ProtocolViolation):
        parse_close(code.to_bytes(2, "big"))


def test_reactions() -> None:
    """A client does what the table says; after codes outside it, or a broken network, it reconnects."""
    assert reaction_to(4001) is Reaction.NEW_TOKEN
    assert reaction_to(CloseCode.TOO_MANY) is Reaction.RECONNECT_SLOWLY
    assert reaction_to(1006) is Reaction.RECONNECT
    assert reaction_to(4999) is Reaction.RECONNECT


def test_errors_carry_a_code_of_the_registry() -> None:
    """An exception speaks its class's code unless it was given another."""
    assert RingError("x").code is ErrorCode.INTERNAL
    assert BadRequest("x").code is ErrorCode.BAD_REQUEST
    error = BadRequest("too long", code=ErrorCode.TOO_LARGE)
    assert (error.code, str(error)) == (ErrorCode.TOO_LARGE, "too long")
    assert BadRequest.code is ErrorCode.BAD_REQUEST
