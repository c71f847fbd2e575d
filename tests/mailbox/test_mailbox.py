"""One mailbox: windows, cursors, what is kept for those who come back."""

import pytest

from ring.mailbox import mailbox
from ring.mailbox.mailbox import FATES_S, HISTORY_BYTES, HISTORY_LETTERS, WINDOW_BYTES, WINDOW_LETTERS
from ring.protocol.codes import CloseCode
from tests.mailbox.office import EPOCH, Office, Seat


def settled(count: int, *, data: bytes = b"1") -> tuple[Office, Seat]:
    """An office whose bob has had and acknowledged m1 to m<count>."""
    office = Office()
    phone = office.attach()
    for index in range(1, count + 1):
        office.send(f"m{index}", data=data)
        phone.ack()
    return office, phone


class TestWindow:
    """How much is on its way to a session without an acknowledgement."""

    def test_it_admits_so_many_letters(self) -> None:
        """The next goes out for each that is acknowledged, in order."""
        office = Office()
        phone = office.attach()
        for index in range(WINDOW_LETTERS + 10):
            office.send(f"m{index}")
        assert phone.numbers == list(range(1, WINDOW_LETTERS + 1))
        phone.ack((EPOCH, 3))
        assert phone.numbers == list(range(1, WINDOW_LETTERS + 4))
        phone.ack((EPOCH, 3))
        phone.ack((EPOCH, WINDOW_LETTERS))
        assert phone.numbers == list(range(1, WINDOW_LETTERS + 11))

    def test_it_admits_so_many_bytes(self) -> None:
        """One letter may reach over the edge: then nothing follows it until some are acknowledged."""
        office = Office()
        phone = office.attach()
        data = b'"%s"' % (b"x" * 50_000)
        for index in range(30):
            office.send(f"m{index}", data=data)
        inside = WINDOW_BYTES // 50_000 + 1
        assert len(phone.got) == inside
        phone.ack((EPOCH, 1))
        assert len(phone.got) == inside + 1
        phone.ack()
        assert len(phone.got) == 2 * inside + 1
        assert phone.attachment is not None
        phone.ack()
        phone.ack()
        assert (len(phone.got), phone.attachment.flight_bytes) == (30, 0)

    def test_each_session_has_its_own(self) -> None:
        """A slow one holds up nobody."""
        office = Office()
        slow, quick = office.attach("slow"), office.attach("quick")
        for index in range(300):
            office.send(f"m{index}")
            quick.ack()
        assert (len(slow.got), len(quick.got)) == (256, 300)

    def test_what_was_trimmed_away_does_not_count_for_ever(self) -> None:
        """Letters that were forgotten on their way to a slow session leave its window's bytes too."""
        office = Office()
        slow = office.attach("slow")
        for index in range(10):
            office.send(f"m{index}", data=b'"%s"' % (b"x" * 1000))
        office.pass_time(61)
        office.send("next")
        assert slow.attachment is not None
        assert slow.attachment.flight_bytes > 10_000
        slow.ack()
        assert slow.attachment.flight_bytes == 0
        assert [fate[0] for fate in office.fates if fate[1] == "delivered"] == ["next"]

    def test_own_messages_in_between_leave_it_with_the_acknowledgement(self) -> None:
        """What was never sent to the session needs none of its own, before, between or behind."""
        office = Office()
        mine, other = office.attach("phone", session="mine"), office.attach("laptop")
        for name in ("own1", "m1", "own2", "own3", "m2", "own4"):
            own = name.startswith("own")
            office.send(name, sender="bob" if own else "alice", origin="mine" if own else "")
        assert mine.ids == ["m1", "m2"]
        assert mine.attachment is not None
        mine.ack((EPOCH, 2))
        assert mine.attachment.acked == 4
        mine.ack()
        assert (mine.attachment.acked, mine.attachment.flight_bytes) == (6, 0)
        assert [fate[0] for fate in office.fates] == ["m1", "m2"]
        other.ack()
        assert [fate[0] for fate in office.fates] == ["m1", "m2", "own1", "own2", "own3", "own4"]


class TestFresh:
    """A session that does not say where it was."""

    def test_it_gets_what_is_unsettled(self) -> None:
        """From the first letter without a fate on; what was settled before does not come again."""
        office = Office()
        phone = office.attach("phone")
        for index in range(5):
            office.send(f"m{index}")
        phone.ack((EPOCH, 2))
        laptop = office.attach("laptop")
        assert laptop.resumed is False
        assert laptop.start == (EPOCH, 2)
        assert laptop.ids == ["m2", "m3", "m4"]

    def test_what_was_on_its_way_is_marked(self) -> None:
        """A client that comes back may have had it; what nobody was sent is not marked."""
        office = Office()
        phone = office.attach()
        office.send("m1")
        phone.leave(clean=False)
        office.send("m2")
        back = office.attach()
        assert (back.ids, back.marked) == (["m1", "m2"], ["m1"])
        tablet = office.attach("tablet")
        assert tablet.marked == ["m1", "m2"]
        assert all(
            letter.body is not None and letter.body.count(b"redelivered") == 1
            for letter in office.box().letters
        )

    def test_the_first_of_a_mailbox_starts_at_its_floor(self) -> None:
        """What it is told to start behind is what no message will be at or before."""
        office = Office()
        assert office.attach().start == (EPOCH, 0)


class TestResume:
    """A client that comes back behind the last sequence that it had."""

    def test_it_gets_exactly_what_it_missed(self) -> None:
        """Also what another device has settled meanwhile."""
        office, phone = settled(3)
        phone.leave(clean=True)
        office.attach("laptop")
        office.send("m4")
        office.send("m5")
        back = office.attach(resume=f"{EPOCH}-2")
        assert back.resumed is True
        assert back.start == (EPOCH, 2)
        assert (back.ids, back.marked) == (["m3", "m4", "m5"], ["m3", "m4", "m5"])

    def test_nothing_missed_is_nothing_sent(self) -> None:
        """The cursor at the end; what comes now follows, unmarked."""
        office, _ = settled(3)
        back = office.attach("laptop", resume=f"{EPOCH}-3")
        office.send("m4")
        assert (back.resumed, back.ids, back.marked) == (True, ["m4"], [])

    def test_it_acknowledges_what_it_had(self) -> None:
        """Who is behind a message has it: its sender is told so, by this session's way to acknowledge."""
        office = Office()
        office.attach(session="a").leave(clean=False)
        old = office.attach()
        for index in range(3):
            office.send(f"m{index}")
        old.leave(clean=False)
        office.attach(resume=f"{EPOCH}-2", by="pong")
        assert office.fates == [("m0", "delivered", "pong", None), ("m1", "delivered", "pong", None)]

    def test_it_does_not_acknowledge_what_its_client_sent_itself(self) -> None:
        """The client's earlier session got no copy of it, and this one can't tell: it comes from there."""
        office = Office()
        mine = office.attach("phone", session="mine")
        office.attach("laptop", gateway="g", handle=1)
        office.mailboxes.suspend("g")
        for name, origin in (("m1", ""), ("own", "mine"), ("m2", "")):
            office.send(name, sender="bob" if origin else "alice", origin=origin)
        assert mine.ids == ["m1", "m2"]
        mine.leave(clean=False)
        back = office.attach("phone", resume=f"{EPOCH}-3")
        assert [fate[0] for fate in office.fates] == ["m1"]
        assert (back.resumed, back.ids, back.marked) == (True, ["own", "m2"], ["m2"])
        assert back.start == (EPOCH, 1)

    @pytest.mark.parametrize(
        "resume", [f"{EPOCH}-99", f"{EPOCH + 1}-1", f"{EPOCH - 1}-2", "", "7", "x-y", "7-1-1"]
    )
    def test_a_cursor_of_another_life_is_a_gap(self, resume: str) -> None:
        """A sequence that this mailbox never gave, or none at all: what is unsettled comes."""
        office = Office()
        phone = office.attach()
        office.send("m1")
        phone.ack()
        office.send("m2")
        office.send("m3")
        back = office.attach("laptop", resume=resume)
        assert back.resumed == "gap"
        assert back.ids == ["m2", "m3"]
        assert [fate[0] for fate in office.fates] == ["m1"], "it acknowledges nothing"

    def test_an_untracked_message_can_be_the_cursor(self) -> None:
        """Its number is between those of the letters."""
        office, _ = settled(2)
        office.send(None, tracked=False)
        office.send("m4")
        back = office.attach("laptop", resume=f"{EPOCH}-3")
        assert (back.resumed, back.ids) == (True, ["m4"])

    def test_failed_messages_do_not_come(self) -> None:
        """Their senders were told that they did not arrive."""
        office, phone = settled(1)
        office.send("m2")
        office.pass_time(2.1)
        office.send("m3")
        phone.ack()
        back = office.attach("laptop", resume=f"{EPOCH}-1")
        assert (back.resumed, back.ids) == (True, ["m3"])


class TestHistory:
    """The text of settled letters, kept for those who resume."""

    def test_it_is_bounded_in_letters(self) -> None:
        """The last ones can be replayed; a cursor before them is a gap."""
        office, _ = settled(HISTORY_LETTERS + 50)
        back = office.attach("laptop", resume=f"{EPOCH}-50")
        assert (back.resumed, back.numbers[0], len(back.got)) == (True, 51, WINDOW_LETTERS)
        older = office.attach("tablet", resume=f"{EPOCH}-49")
        assert (older.resumed, older.got) == ("gap", [])
        assert [letter.body is None for letter in office.box().letters] == [True] * 50 + [
            False
        ] * HISTORY_LETTERS

    def test_it_is_bounded_in_bytes(self) -> None:
        """Large ones are kept for a shorter way."""
        office, _ = settled(50, data=b'"%s"' % (b"x" * 50_000))
        kept = [letter for letter in office.box().letters if letter.body is not None]
        assert HISTORY_BYTES - 60_000 < sum(letter.size for letter in kept) <= HISTORY_BYTES
        assert office.box().kept_bytes == sum(letter.size for letter in kept)
        first = kept[0].number
        assert office.attach("a", resume=f"{EPOCH}-{first - 1}").resumed is True
        assert office.attach("b", resume=f"{EPOCH}-{first - 2}").resumed == "gap"

    def test_what_is_unsettled_keeps_its_text(self) -> None:
        """However much there is: it has not arrived yet."""
        office = Office()
        office.attach("slow")
        for index in range(HISTORY_LETTERS + 100):
            office.send(f"m{index}")
        assert all(letter.body for letter in office.box().letters)
        seat = office.attach("other")
        for _ in range(3):
            seat.ack()
        assert len(seat.got) == HISTORY_LETTERS + 100

    def test_it_is_forgotten_with_the_fates(self) -> None:
        """After a minute a cursor before it is a gap, one behind it is not."""
        office, _ = settled(3)
        office.pass_time(30)
        office.send("m4")
        office.attach("tablet").ack()
        office.pass_time(FATES_S - 29)
        box = office.box()
        assert ([letter.number for letter in box.letters], box.floor) == ([4], (EPOCH, 3))
        assert box.kept_bytes == box.letters[0].size
        assert office.attach("laptop", resume=f"{EPOCH}-2").resumed == "gap"
        assert office.attach("laptop", resume=f"{EPOCH}-3").ids == ["m4"]
        office.pass_time(60)
        assert (box.kept_bytes, box.letters, box.floor) == (0, [], (EPOCH, 4))

    def test_forgetting_does_not_lower_what_can_be_replayed(self) -> None:
        """Old fates go one by one; the text that went before them stays gone."""
        office, _ = settled(HISTORY_LETTERS + 50)
        office.pass_time(30)
        office.send("last")
        office.attach("tablet").ack()
        floor = office.box().floor
        office.box().trim(office.clock.now + 29)
        assert office.box().floor == floor


class TestFates:
    """What became of letters, remembered for those who ask again."""

    def test_they_are_bounded_in_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The oldest go first; those without a fate stay."""
        monkeypatch.setattr(mailbox, "FATES", 100)
        office, phone = settled(150)
        office.send("open")
        office.send("m1", again=True)  # still known, and the index is there
        assert phone.ids[-1] == "open"
        office.pass_time(2)
        box = office.box()
        assert (len(box.letters), box.letters[0].number) == (100, 52)
        office.send("m52", again=True)
        assert phone.ids[-1] == "open"
        office.send("m51", again=True)
        assert phone.ids[-1] == "m51"

    def test_an_open_letter_holds_the_later_fates(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Cursors are positions: nothing is taken out of the middle."""
        monkeypatch.setattr(mailbox, "FATES", 10)
        office = Office()
        mine, other = office.attach("phone", session="mine"), office.attach("laptop")
        office.send("own", sender="bob", origin="mine")
        for index in range(30):
            office.send(f"m{index}")
        mine.ack()
        office.box().trim(office.clock.now)
        assert len(office.box().letters) == 31
        other.ack()
        office.box().trim(office.clock.now)
        assert len(office.box().letters) == 10

    def test_the_index_is_let_go_with_the_last_letter(self) -> None:
        """Nothing of it stays."""
        office, _ = settled(3)
        office.send("m1", again=True)
        assert office.box().index is not None
        office.pass_time(61)
        assert office.box().index is None

    def test_a_later_message_of_the_same_name_stays_known(self) -> None:
        """Forgetting the older one does not forget it."""
        office, phone = settled(1)
        office.send("m1", again=True)
        office.pass_time(30)
        office.send("m1")
        phone.ack()
        office.pass_time(31)
        office.send("m1", again=True)
        assert phone.ids == ["m1", "m1"]
        assert len(office.told("m1")) == 4

    def test_trimming_moves_no_cursor(self) -> None:
        """Sessions go on where they were."""
        office, phone = settled(5)
        office.pass_time(61)
        assert office.box().base == 5
        office.send("m6")
        office.send("m7")
        phone.ack((EPOCH, 6))
        assert phone.ids[-2:] == ["m6", "m7"]
        assert [fate[0] for fate in office.fates] == ["m1", "m2", "m3", "m4", "m5", "m6"]


@pytest.mark.parametrize("lag", [0, 1])
def test_a_session_without_what_comes_next_is_closed_when_it_asks_for_it(lag: int) -> None:
    """History is gone where it would go on: when the window opens it is told so, and not before."""
    office = Office()
    slow, quick = office.attach("slow"), office.attach("quick")
    for index in range(WINDOW_LETTERS + HISTORY_LETTERS + lag):
        office.send(f"m{index}")
        quick.ack()
    assert slow.closed is None
    slow.ack((EPOCH, 1))
    assert slow.closed == (CloseCode.SLOW_CONSUMER if lag else None)
    assert len(slow.got) == (WINDOW_LETTERS if lag else WINDOW_LETTERS + 1)
    assert len(office.box().attachments) == 2 - lag
