"""What a client does after an ending, and when: decided without a clock or a socket."""

import pytest

from ring.client.backoff import Addresses, Backoff, Ending
from ring.protocol.codes import CLOSINGS, Reaction


@pytest.mark.parametrize(
    ("tries", "draw", "delay"),
    [
        (0, 0.0, 0.0),
        (0, 1.0, 0.2),  # the first try within 200 ms
        (1, 1.0, 0.4),
        (3, 0.5, 0.8),
        (5, 1.0, 6.4),
        (6, 1.0, 10.0),  # capped
        (10**9, 1.0, 10.0),
    ],
)
def test_delay_doubles_with_full_jitter_up_to_the_cap(tries: int, draw: float, delay: float) -> None:
    """The bound doubles with each try, up to the cap, and the delay is anything below it."""
    assert Backoff(draw=lambda: draw).delay(tries) == pytest.approx(delay)


def test_slow_delay_begins_at_five_seconds() -> None:
    """Where a node said "too many", no try comes sooner than `slow_s`."""
    assert Backoff(draw=lambda: 0.0).delay(0, slow=True) == 5.0
    assert Backoff(draw=lambda: 1.0).delay(0, slow=True) == pytest.approx(5.2)
    assert Backoff(draw=lambda: 1.0).delay(99, slow=True) == 15.0


def test_default_draw_is_random() -> None:
    """Two clients don't come back at the same time."""
    delays = {Backoff().delay(0) for _ in range(10)}

    assert len(delays) > 1
    assert all(0 <= delay <= 0.2 for delay in delays)


@pytest.mark.parametrize("code", sorted(CLOSINGS))
def test_close_codes_react_as_registered(code: int) -> None:
    """For a close frame the registry of close codes decides."""
    assert Ending("", close_code=code).reaction is CLOSINGS[code].reaction


@pytest.mark.parametrize(
    ("status", "reaction"),
    [
        (400, Reaction.STOP),
        (401, Reaction.NEW_TOKEN),
        (403, Reaction.STOP),
        (426, Reaction.STOP),
        (429, Reaction.RECONNECT_SLOWLY),
        (502, Reaction.RECONNECT),
        (503, Reaction.RECONNECT),
    ],
)
def test_refusals_react_by_status(status: int, reaction: Reaction) -> None:
    """For an HTTP refusal the status decides, and what may pass is tried again."""
    assert Ending("", status=status).reaction is reaction


def test_broken_connections_are_made_anew() -> None:
    """Without a close frame or with a code that nobody knows, the client connects again."""
    assert Ending("").reaction is Reaction.RECONNECT
    assert Ending("", close_code=1006).reaction is Reaction.RECONNECT
    assert Ending("", close_code=4999).reaction is Reaction.RECONNECT


def test_addresses_are_tried_in_turn() -> None:
    """Each attempt takes the next address, and the first follows the last."""
    addresses = Addresses(["a", "b", "c"])

    assert [addresses.next(0.0)[0] for _ in range(5)] == ["a", "b", "c", "a", "b"]


def test_deferred_address_is_passed_over() -> None:
    """An address that asked for time is not tried before, while another may be; then it takes its turn."""
    addresses = Addresses(["a", "b"])
    addresses.defer("a", 10.0)

    assert [addresses.next(5.0)[0] for _ in range(3)] == ["b", "b", "b"]
    assert [addresses.next(10.0)[0] for _ in range(2)] == ["a", "b"]


def test_deferred_addresses_leave_the_soonest() -> None:
    """If all want to be left alone, the first that may be tried again is next, and it is told when."""
    addresses = Addresses(["a", "b"])
    addresses.defer("a", 10.0)
    addresses.defer("b", 7.0)

    assert addresses.next(5.0) == ("b", 7.0)
