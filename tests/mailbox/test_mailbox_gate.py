"""One mailbox of which Redis has a part: what is put behind the gate, what is taken out, who stops there."""

from typing import Any

import pytest

from ring.mailbox.attachment import Attachment
from ring.mailbox.letter import Letter
from ring.mailbox.mailbox import FATES_S, OPEN, Mailbox
from ring.protocol.peer import Attach, Seq
from tests.mailbox.office import EPOCH, body


class Outlet:
    """Notes the numbers that come."""

    def __init__(self) -> None:
        self.got: list[Seq] = []

    def deliver(self, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        self.got.append((epoch, number))

    def expel(self, code: int, reason: str) -> None:
        raise AssertionError("nobody is sent away here")


def letter(number: int, *, epoch: int = EPOCH, home: bool = False, **options: Any) -> Letter:
    """One without a fate; or one that Redis has."""
    one = Letter(
        epoch,
        number,
        "alice",
        f"{epoch}.{number}",
        body("m", epoch, number),
        10,
        0.0,
        2.0,
        "g",
        1,
        "",
        **options,
    )
    if home:
        one.status, one.home = "queued", (epoch, number)
    return one


def box(*letters: Letter, gate: int = OPEN) -> Mailbox:
    """A mailbox with these letters."""
    made = Mailbox("bob", EPOCH, 99)
    for one in letters:
        made.append(one)
    made._count_anew()
    made.gate = gate
    return made


def seated(made: Mailbox, position: int = 0, *, session: str = "s") -> Attachment:
    """A session that has been sent so many."""
    attach = Attach(1, "bob", session, session, "", 0, None, None, "client", None)
    attachment = Attachment(attach, "g", "g/1", Outlet())
    attachment.position = position
    made.attachments.append(attachment)
    return attachment


def got(attachment: Attachment) -> list[Seq]:
    """What a session has been sent."""
    assert isinstance(attachment.outlet, Outlet)
    return attachment.outlet.got


def state(made: Mailbox) -> tuple[int, bool, bool, Seq | None, bool]:
    """What is known of what Redis has."""
    return made.gate, made.unread, made.late, made.read_to, made.readable


def seqs(letters: list[Letter]) -> list[Seq]:
    """Their sequences."""
    return [(one.epoch, one.number) for one in letters]


class TestInsert:
    """What was read comes behind the gate."""

    def test_where_its_numbers_belong(self) -> None:
        """The gate moves behind what was read, and is gone with the last."""
        made = box(letter(1), letter(8), letter(9), gate=1)
        made.read_to = (EPOCH, 4)
        assert made.insert([letter(3, home=True), letter(4, home=True)], more=True) == []
        assert (seqs(made.letters), made.gate) == ([(EPOCH, n) for n in (1, 3, 4, 8, 9)], 3)
        made.read_to = (EPOCH, 8)
        made.insert([letter(7, home=True)], more=False)
        assert (seqs(made.letters), made.gate) == ([(EPOCH, n) for n in (1, 3, 4, 7, 8, 9)], OPEN)
        assert made.unsettled_bytes == 60

    def test_nothing_before_what_sessions_have_had(self) -> None:
        """It is given back: it needs a number behind them."""
        made = box(letter(5), letter(9), gate=1)
        seated(made, 1)
        early, late = letter(4, home=True), letter(6, home=True)
        assert made.insert([early, late], more=False) == [early]
        assert seqs(made.letters) == [(EPOCH, 5), (EPOCH, 6), (EPOCH, 9)]

    def test_nor_before_what_they_came_with(self) -> None:
        """A session has had later ones of another owner."""
        made = box(letter(9), gate=0)
        seated(made).floor = (EPOCH, 6)
        early = letter(6, home=True)
        assert made.insert([early, letter(7, home=True)], more=False) == [early]

    def test_fates_without_a_text_do_not_lie_behind(self) -> None:
        """A session would stumble over them."""
        bare = letter(4)
        bare.status, bare.by, bare.body = "delivered", "client", None
        made = box(bare, letter(5), gate=0)
        made.insert([letter(3, home=True)], more=False)
        assert seqs(made.letters) == [(EPOCH, 3), (EPOCH, 5)]


class TestEvict:
    """What Redis has need not be here."""

    def test_without_a_session_all_of_it_goes(self) -> None:
        """What is on its way there, or nowhere else, stays behind the gate."""
        made = box(letter(1), letter(2, home=True), letter(3, pushing=True), letter(4, home=True))
        assert seqs(made.evict()) == [(EPOCH, 2), (EPOCH, 4)]
        assert (seqs(made.letters), made.gate, made.read_from) == ([(EPOCH, 1), (EPOCH, 3)], 1, None)
        assert made.evict() == []

    def test_what_a_session_was_sent_stays(self) -> None:
        """It may acknowledge it; the one that has got furthest counts."""
        made = box(*(letter(number, home=True) for number in range(1, 6)))
        seated(made, 1)
        seated(made, 3, session="t")
        assert seqs(made.evict()) == [(EPOCH, 4), (EPOCH, 5)]
        assert (made.gate, made.read_from) == (3, (EPOCH, 3))

    def test_what_was_read_for_a_session_stays(self) -> None:
        """Up to the gate: it comes to that next."""
        made = box(*(letter(number, home=True) for number in range(1, 6)), gate=4)
        seated(made, 1)
        assert seqs(made.evict()) == [(EPOCH, 5)]
        assert made.gate == 4


class TestGate:
    """Nobody goes past it."""

    def test_it_closes_where_the_furthest_is(self) -> None:
        """Or at the front; what is behind is to be read anew."""
        made = box(letter(1), letter(2), letter(3))
        made.late, made.read_to = True, (EPOCH, 1)
        made.close_gate()
        assert state(made) == (0, True, False, None, False)
        seated(made, 2)
        made.close_gate()
        assert made.gate == 2

    def test_letters_behind_it_wait(self) -> None:
        """Until it moves."""
        made = box(letter(1), letter(2), letter(3), gate=2)
        session = seated(made)
        assert made.push(session)
        assert got(session) == [(EPOCH, 1), (EPOCH, 2)]
        made.gate = OPEN
        assert made.push(session)
        assert got(session) == [(EPOCH, 1), (EPOCH, 2), (EPOCH, 3)]

    @pytest.mark.parametrize("settled", [False, True])
    def test_sessions_are_placed_before_it(self, settled: bool) -> None:
        """However far they have got, and whatever has been settled behind."""
        made = box(letter(1), letter(2), letter(3), gate=1)
        if settled:
            for one in made.letters:
                one.status = "failed"
                made.settle(one)
        session = seated(made)
        made.place(session, (EPOCH, 9))
        assert session.position == 1
        made.place_fresh(session)
        assert session.position == (1 if settled else 0)

    def test_where_it_is_readable(self) -> None:
        """It is known behind what a session gets its letters."""
        made = box(letter(1), letter(2), gate=0)
        readable = []
        for made.gate, made.unread in ((0, False), (1, False), (1, True), (OPEN, False), (OPEN, True)):
            readable.append(made.readable)
        assert readable == [False, True, False, True, False]
        made.gate = 1
        assert made.before(1) == (EPOCH, 1)

    def test_what_was_read_starts_before_its_first(self) -> None:
        """Though the mailbox itself began behind it."""
        made = box()
        made.gate = 0
        made.insert([letter(5, epoch=EPOCH - 1, home=True)], more=False)
        assert made.before(0) == (EPOCH - 1, 4)

    def test_who_is_hungry(self) -> None:
        """A session that has been sent all that is here, has room, and a link."""
        made = box(letter(1), letter(2), gate=1)
        session = seated(made, 1)
        full, outlet = made.window_bytes, session.outlet
        hungry = []
        for session.position, session.flight_bytes, session.outlet, made.gate, made.late in (
            (1, 0, outlet, 1, False),
            (1, full, outlet, 1, False),
            (1, 0, None, 1, False),
            (0, 0, outlet, 1, False),
            (2, 0, outlet, OPEN, False),
            (2, 0, outlet, OPEN, True),
        ):
            hungry.append(made.hungry)
        assert hungry == [True, False, False, False, False, True]


class TestTrim:
    """Old fates are forgotten."""

    def fates(self, gate: int) -> Mailbox:
        made = box(letter(1), letter(2), letter(3), gate=gate)
        for one in made.letters:
            one.status = "failed"
            made.settle(one)
        return made

    def test_up_to_the_gate_while_there_are_sessions(self) -> None:
        """They have still to pass the others."""
        made = self.fates(2)
        seated(made, 2)
        made.trim(FATES_S + 1)
        assert (seqs(made.letters), made.base, made.gate) == ([(EPOCH, 3)], 2, 2)

    def test_all_where_nobody_is(self) -> None:
        """The gate is never before the first that is here."""
        made = self.fates(0)
        made.trim(FATES_S + 1)
        assert (made.letters, made.base, made.gate) == ([], 3, 3)
