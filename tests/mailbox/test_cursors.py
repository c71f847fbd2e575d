"""Who comes back after his mailbox was forgotten: when he is told that nothing is missing, and when a gap."""

import pytest
from msgspec import Raw

from ring.mailbox import shelf
from ring.mailbox.attachment import Attachment
from ring.mailbox.handover import pack, take
from ring.mailbox.letter import Letter
from ring.mailbox.mailbox import FATES_S, Mailbox
from ring.protocol.client import Message, encode, format_seq
from ring.protocol.names import slot_of
from ring.protocol.peer import Attach
from tests.mailbox.office import EPOCH, Office, Seat, stored_office

LATER = EPOCH + 3
SLOT = slot_of("bob")


def idle(*ids: str, office: Office | None = None) -> Office:
    """Bob has had these and acknowledged them; long ago, so that his mailbox is forgotten."""
    office = office or stored_office()
    seat = office.attach()
    go_on(office, 0)
    for message_id in ids:
        office.send(message_id)
    seat.ack()
    seat.leave(clean=True)
    go_on(office, FATES_S + 1)
    assert office.mailboxes.boxes == {}
    return office


def go_on(office: Office, seconds: float) -> None:
    """Time goes by, whether there is a store or not."""
    if office.store is None:
        office.pass_time(seconds)
    else:
        office.spend(seconds)


def resumes(office: Office, cursor: str, device: str = "phone") -> tuple[object, list[str | None]]:
    """What a client with this cursor is told, and gets."""
    seat = office.attach(device, resume=cursor)
    office.carry()
    return seat.resumed, seat.ids


class TestForgotten:
    """Nobody but this node had the slot meanwhile."""

    def test_who_missed_nothing_is_told_so(self) -> None:
        """However long he was away; also the second time, and where nothing is stored."""
        for office in (stored_office(), Office()):
            idle("m1", "m2", office=office)
            for _ in range(2):
                seat = office.attach(resume=f"{EPOCH}-2")
                go_on(office, 0)
                assert (seat.resumed, seat.ids) == (True, [])
                seat.leave(clean=True)
                go_on(office, 3600)
                assert office.mailboxes.boxes == {}

    def test_what_was_stored_comes(self) -> None:
        """All of it, marked where it had been on its way; what is numbered then is behind the cursor too."""
        office = idle("m1", "m2")
        for message_id in ("m3", "m4"):
            office.send(message_id)
        office.spend(1800)
        assert office.mailboxes.boxes == {}
        seat = office.attach(resume=f"{EPOCH}-2")
        office.carry()
        assert (seat.resumed, seat.ids, seat.marked) == (True, ["m3", "m4"], [])
        office.send("m5")
        assert seat.ids == ["m3", "m4", "m5"]
        seat.leave(clean=False)
        assert resumes(office, f"{EPOCH}-{seat.last[1]}") == (True, [])

    def test_what_another_device_has_had_is_missed(self) -> None:
        """It is in no history any more."""
        office = idle("m1", "m2")
        idle("m3", office=office)
        assert resumes(office, f"{EPOCH}-2") == ("gap", [])
        assert resumes(office, f"{EPOCH}-3", "laptop") == (True, [])

    def test_what_another_device_has_now_comes(self) -> None:
        """It was numbered behind the cursor, and is in the history still."""
        office = idle("m1", "m2")
        laptop = office.attach("laptop")
        office.carry()
        office.send("m3")
        laptop.ack()
        assert resumes(office, f"{EPOCH}-2") == (True, ["m3"])

    def test_a_cursor_of_what_was_untracked_is_good(self) -> None:
        """Such messages are numbered too."""
        office = stored_office()
        seat = office.attach()
        office.carry()
        office.send("m1")
        seat.ack()
        office.send(None, tracked=False)
        seat.leave(clean=True)
        office.spend(FATES_S + 1)
        assert resumes(office, f"{EPOCH}-2") == (True, [])

    @pytest.mark.parametrize(
        "cursor",
        [f"{EPOCH}-3", f"{EPOCH + 1}-1", f"{LATER}-2", f"{LATER}-3", f"{LATER + 1}-1", f"{EPOCH - 1}-9", "?"],
    )
    def test_a_cursor_that_no_mailbox_of_this_user_gave_is_a_gap(self, cursor: str) -> None:
        """Nor one between the last number of the one before and the first of this one: another cluster's."""
        office = idle("m1", "m2")
        office.mailboxes.moved(LATER, set(), ())
        assert resumes(office, cursor) == ("gap", [])
        assert resumes(office, f"{EPOCH}-2", "laptop") == (True, [])

    def test_two_lives_with_numbers_are_not_told_apart_later(self) -> None:
        """The cursor of the first is not good any more, though it might be."""
        office = stored_office()
        for epoch in (EPOCH, LATER):
            office.mailboxes.moved(epoch, set(), ())
            seat = office.attach()
            office.carry()
            office.send(None, tracked=False)
            seat.leave(clean=True)
            office.spend(1)
            assert office.mailboxes.boxes == {}
        assert resumes(office, f"{EPOCH}-1") == ("gap", [])
        assert resumes(office, f"{LATER}-2", "laptop") == (True, [])

    def test_only_so_many_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The oldest give way; who never had a message takes nobody's place."""
        monkeypatch.setattr(shelf, "TRACES", 2)
        office = stored_office()
        for user in ("ann", "bob", "eve"):
            seat = office.attach(user=user)
            office.carry()
            office.send("m", to=user)
            seat.ack()
            seat.leave(clean=True)
            office.spend(FATES_S + 1)
        office.attach(user="nobody")
        office.carry()
        number = {"ann": 1, "bob": 2, "eve": 3}
        told = {}
        for user in number:
            seat = office.attach(user=user, resume=f"{EPOCH}-{number[user]}")
            office.carry()
            told[user] = seat.resumed
        assert told == {"ann": "gap", "bob": True, "eve": True}


class TestOtherOwners:
    """Others had the slot meanwhile, or may have had it."""

    def test_what_was_remembered_is_void(self) -> None:
        """Lost and gained again: letters were numbered elsewhere."""
        office = idle("m1")
        office.mailboxes.moved(LATER, set(), [SLOT])
        office.mailboxes.handed_over([SLOT])
        office.mailboxes.moved(LATER + 1, {SLOT}, ())
        office.mailboxes.serve([SLOT])
        assert resumes(office, f"{EPOCH}-1") == ("gap", [])

    def test_of_other_slots_it_stays(self) -> None:
        """A change that concerns others voids nothing, nor interrupts a mailbox that is in memory."""
        office = idle("m1")
        eve = office.attach(user="eve")
        office.carry()
        office.send("m2", to="eve")
        eve.ack()
        other = (SLOT + 1) % 16384
        office.mailboxes.moved(LATER, {other}, ())
        office.mailboxes.serve([other])
        assert resumes(office, f"{EPOCH}-1") == (True, [])
        assert office.attach("laptop", user="eve", resume=f"{EPOCH}-2").resumed is True

    def test_of_what_is_handed_over_nothing_is_remembered(self) -> None:
        """The new owner goes on with it."""
        office = stored_office()
        seat = office.attach()
        office.carry()
        office.send("m1")
        seat.ack()
        seat.leave(clean=True)
        office.spend(1)
        box = office.box()
        office.mailboxes.moved(LATER, set(), [SLOT])
        box.trim(office.clock.now + FATES_S + 1)
        office.mailboxes.drop(box)
        office.mailboxes.handed_over([SLOT])
        assert resumes(office, f"{EPOCH}-1") == ("gap", [])

    def test_what_came_late_is_behind_what_is_remembered(self) -> None:
        """A node that owned a slot without knowing, between others whose numbers it does not know: what it
        hands over vouches for nothing."""
        office = idle("m1")
        office.mailboxes.moved(LATER, set(), [SLOT])
        office.mailboxes.handed_over([SLOT])
        office.mailboxes.adopt(SLOT, LATER - 1)
        office.send("m2", routed=LATER - 1)
        [item] = pack(office.box(), office.clock.now)
        assert (item.floor, [letter.id for letter in item.letters]) == ((LATER - 1, 1), ["m2"])

    def test_a_mailbox_that_was_interrupted_vouches_for_no_earlier_cursor(self) -> None:
        """Epochs were skipped: what another numbered, and handed to nobody, is missing in the history."""
        office = stored_office()
        seat = office.attach()
        office.carry()
        office.send("m1")
        seat.ack()
        seat.leave(clean=True)
        office.send("m2")
        office.spend(1)
        assert office.box().left == 1
        office.mailboxes.moved(LATER, {SLOT}, [SLOT])
        office.mailboxes.serve([SLOT])
        [item] = pack(office.box(), office.clock.now)
        assert (item.floor, item.left) == ((LATER, 0), 0), "nor does the next owner"
        back = office.attach(resume=f"{EPOCH}-1")
        office.carry()
        office.send("m3")
        assert (back.resumed, back.ids) == ("gap", ["m2", "m3"])
        back.ack()
        assert resumes(office, format_seq(*back.last), "laptop") == (True, [])


class TestStoreThatForgets:
    """What was left to Redis is not there any more."""

    def away(self) -> Office:
        """Bob is, and m2 and m3 wait for him in the store."""
        office = idle("m1")
        for message_id in ("m2", "m3"):
            office.send(message_id)
        office.spend(1)
        assert office.kept() == ["m2", "m3"]
        return office

    @pytest.mark.parametrize(
        ("lost", "later"), [([0, 1], []), ([1], []), ([0], []), ([0, 1], ["m4"]), ([1], ["m4"])]
    )
    def test_it_was_emptied_or_rolled_back(self, lost: list[int], later: list[str]) -> None:
        """A gap, though more was stored later; what is left comes. It is told once: what comes then can be
        resumed."""
        office = self.away()
        assert office.store is not None
        box = office.store.box(SLOT, "bob")
        box.kept = [kept for index, kept in enumerate(box.kept) if index not in lost]
        left = [message_id for index, message_id in enumerate(["m2", "m3"]) if index not in lost]
        for message_id in later:
            office.send(message_id)
        office.spend(1)
        seat = office.attach(resume=f"{EPOCH}-1")
        office.carry()
        assert (seat.resumed, seat.ids) == ("gap", left + later)
        office.send("m5")
        seat.ack()
        seat.leave(clean=False)
        assert resumes(office, f"{EPOCH}-{seat.last[1]}") == (True, [])

    @pytest.mark.parametrize("lost", [False, True])
    def test_what_he_sent_to_himself_makes_up_for_nothing(self, lost: bool) -> None:
        """It is left to the store as well: what is missing beside it is a gap all the same."""
        office = stored_office()
        seat = office.attach()
        office.carry()
        office.send("m1")
        seat.ack()
        office.send("own", sender="bob", origin=seat.name)
        office.spend(3)
        seat.leave(clean=True)
        office.send("m2")
        office.spend(1)
        assert office.kept() == ["own", "m2"]
        assert office.store is not None
        if lost:
            del office.store.box(SLOT, "bob").kept[1]
        assert resumes(office, f"{EPOCH}-1") == ("gap" if lost else True, ["own", "m2"][: 2 - lost])
        assert office.box().left == 0

    def test_while_the_mailbox_is_in_memory(self) -> None:
        """Its own history does not help."""
        office = stored_office()
        seat = office.attach()
        office.carry()
        office.send("m1")
        seat.ack()
        seat.leave(clean=True)
        office.send("m2")
        office.spend(1)
        assert office.kept() == ["m2"]
        assert office.store is not None
        office.store.box(SLOT, "bob").kept.clear()
        assert resumes(office, f"{EPOCH}-1") == ("gap", [])

    def test_it_is_away(self) -> None:
        """Nobody knows: a gap; and what comes late comes."""
        office = self.away()
        office.redis = False
        seat = office.attach(resume=f"{EPOCH}-1")
        office.be_away(3)
        assert (seat.resumed, seat.ids) == ("gap", [])
        office.redis = True
        office.spend(1)
        assert seat.ids == ["m2", "m3"]

    @pytest.mark.parametrize("lost", [0, 1])
    def test_the_next_owner_knows_what_was_left(self, lost: int) -> None:
        """It looks for that in the store, and vouches for no cursor if it is not there."""
        office = stored_office()
        seat = office.attach()
        office.carry()
        office.send("m1")
        seat.ack()
        seat.leave(clean=True)
        for message_id in ("m2", "m3"):
            office.send(message_id)
        office.spend(1)
        heir = Office(epoch=EPOCH, clock=office.clock, node="n2", store=office.store)
        heir.mailboxes.moved(LATER, {SLOT}, ())
        for item in pack(office.box(), office.clock.now):
            take(heir.mailboxes, item, office.clock.now)
        heir.mailboxes.serve([SLOT])
        assert office.store is not None
        kept = office.store.box(SLOT, "bob").kept
        del kept[len(kept) - lost :]
        assert resumes(heir, f"{EPOCH}-1") == (("gap", ["m2"]) if lost else (True, ["m2", "m3"]))

    def test_what_is_in_memory_too_does_not_count(self) -> None:
        """The mailbox is read from the first letter again: one that was lost is missing all the same."""
        office = stored_office()
        seat = office.attach()
        office.carry()
        office.send("m1")
        office.spend(2.5)
        assert (seat.ids, office.kept()) == (["m1"], ["m1"])
        seat.leave(clean=False)
        office.box().left = 1
        office.box().close_gate()
        assert resumes(office, f"{EPOCH}-0") == ("gap", ["m1"])

    def test_more_pages_are_waited_for(self) -> None:
        """What was left last is looked for in all of them."""
        office = stored_office(page_letters=2)
        idle("m1", office=office)
        for number in range(2, 7):
            office.send(f"m{number}")
        office.spend(1)
        assert resumes(office, f"{EPOCH}-1") == (True, ["m2", "m3", "m4", "m5", "m6"])
        assert office.box().left == 0


def test_a_cursor_says_nothing_of_what_was_late() -> None:
    """It lies in the store under an old number: who comes back later gets it, however high his cursor is."""
    office = idle("m1")
    office.send("m2")
    office.spend(1)
    office.redis = False
    seat = office.attach(resume=f"{EPOCH}-1")
    office.be_away(3)
    office.send("m3")
    assert seat.ids == ["m3"]
    seat.ack()
    seat.leave(clean=True)
    office.redis = True
    office.spend(FATES_S + 1)
    assert (office.kept(), office.mailboxes.boxes) == (["m2"], {})
    assert resumes(office, f"{EPOCH}-{seat.last[1]}") == (True, ["m2"])


def test_what_is_read_and_left_again_is_counted_once() -> None:
    """Someone looks into a large mailbox and goes: nothing is missing when he comes again."""
    office = stored_office(page_letters=2)
    idle("m0", office=office)
    ids = [f"m{number}" for number in range(1, 8)]
    for message_id in ids[:5]:
        office.send(message_id)
    office.spend(1)
    seat = office.attach(resume=f"{EPOCH}-1", start=False)
    office.do(office.asked.take())
    seat.leave(clean=True)
    for message_id in ids[5:]:
        office.send(message_id)
    office.spend(1)
    assert office.kept() == ids
    assert resumes(office, f"{EPOCH}-1") == (True, ids)


def test_nor_of_what_was_late_in_the_same_mailbox() -> None:
    """It has two numbers: sessions got it by the later one, and Redis has it under the first."""

    def late() -> Letter:
        number = EPOCH, 1
        body = encode(Message("alice", "m1", format_seq(*number), Raw(b"1"), 5))
        letter = Letter(*number, "alice", "m1", body, len(body), 0.0, 0.0, "", 0, "", status="queued")
        letter.home = number
        return letter

    box = Mailbox("bob", EPOCH, 4)
    box.append_anew(late())
    assert len(box.evict()) == 1
    assert box.insert([late()], more=False) == []
    attach = Attach(0, "bob", "phone", "s", "", 0, None, None, "client", None)
    attachment = Attachment(attach, "n1", "n1/1", Seat(Office(), "s"))
    assert box.resume(attachment, (EPOCH, 5)) is True
    assert attachment.position == box.base
