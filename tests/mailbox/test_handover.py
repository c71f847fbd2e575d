"""Mailboxes that change owner: what goes over, and what a client and a sender see of it."""

from ring.mailbox.handover import CHUNK_BYTES, HISTORY_BYTES, pack
from ring.protocol import peer
from ring.protocol.codes import CloseCode, ErrorCode
from tests.mailbox.moving import LATER, SLOT, follow, gaining, hand_over, moved, wired
from tests.mailbox.office import EPOCH, Office


class TestRoundTrip:
    """One old owner, one new one, in time."""

    def test_what_nobody_had_comes_from_the_new_owner(self) -> None:
        """Under its old number, and behind it what is sent now, under the new epoch."""
        old = Office()
        seat = old.attach()
        old.mailboxes.suspend("x")
        assert seat.attachment is not None
        seat.attachment.outlet = None
        old.send("m1", data=b'{"deep": ["\xc3\xbc"]}')
        new = gaining(old)
        hand_over(old, new)
        back = follow(seat, new)
        new.mailboxes.serve([SLOT])
        new.send("m2")
        assert [seq for seq, _, _ in back.got] == [(EPOCH, 1), (LATER, 1)]
        assert bytes(back.got[0][1].data) == b'{"deep": ["\xc3\xbc"]}'
        assert back.marked == []
        assert old.mailboxes.boxes == {}

    def test_the_old_owners_gateways_are_told_by_the_new_one(self) -> None:
        """Who is owed a receipt goes along: the first to ask, and all who asked again."""
        old = Office()
        seat = old.attach()
        old.send("m1", gateway="g1")
        old.send("m1", gateway="g2", again=True)
        old.send("m1", gateway="g3", again=True)
        new = gaining(old)
        hand_over(old, new)
        back = follow(seat, new)
        new.mailboxes.serve([SLOT])
        assert back.got == []
        back.ack((EPOCH, 1))
        assert new.told("m1") == [(gateway, "delivered", None) for gateway in ("g1", "g2", "g3")]
        assert old.told("m1") == []

    def test_the_fates_go_along(self) -> None:
        """What is sent again is answered as the old owner would have, and comes no second time."""
        old = Office()
        seat = old.attach()
        old.send("m1")
        seat.ack(by="pong")
        old.send("m2", ttl_ms=100)
        old.pass_time(0.2)
        new = moved(old)
        back = follow(seat, new)
        new.send("m1", again=True, gateway="g2")
        new.send("m2", again=True, gateway="g2")
        assert new.fates == [("m1", "delivered", "pong", None), ("m2", "failed", None, ErrorCode.EXPIRED)]
        assert back.got == []

    def test_fates_do_not_grow_younger(self) -> None:
        """A minute after the message they are forgotten, however often it changed hands."""
        old = Office()
        seat = old.attach()
        old.send("m1")
        seat.ack()
        old.pass_time(40)
        new = moved(old)
        new.pass_time(19)
        new.send("m1", again=True)
        assert len(new.told("m1")) == 1
        new.pass_time(2)
        assert new.mailboxes.boxes == {}

    def test_what_is_open_gets_its_whole_time(self) -> None:
        """Its sessions are on the move too, so the time to acknowledge begins anew; then it fails as ever."""
        old = Office()
        seat = old.attach()
        old.send("m1")
        old.pass_time(1.5)
        new = moved(old)
        follow(seat, new)
        new.pass_time(1.9)
        assert new.fates == []
        new.pass_time(0.2)
        assert new.code("m1") is ErrorCode.OFFLINE

    def test_ttl_goes_along(self) -> None:
        """A short patience stays short."""
        old = Office()
        seat = old.attach()
        old.send("m1", ttl_ms=300)
        new = moved(old)
        follow(seat, new)
        new.pass_time(0.4)
        assert new.code("m1") is ErrorCode.EXPIRED

    def test_linger_goes_along(self) -> None:
        """A user whose connection broke is waited for as long as before."""
        old = Office()
        old.attach().leave(clean=False)
        old.send("m1")
        old.pass_time(1.0)
        new = Office(epoch=LATER, clock=old.clock, node="n2")
        new._ids = old._ids
        new.mailboxes.closed.add(SLOT)
        [item] = hand_over(old, new)
        assert item.linger_ms == 1000
        new.mailboxes.serve([SLOT])
        new.pass_time(0.9)
        assert new.fates == []
        new.pass_time(0.2)
        assert new.code("m1") is ErrorCode.OFFLINE

    def test_a_goodbye_goes_along(self) -> None:
        """Who is not waited for is not waited for; the numbers say no negative time."""
        old = Office()
        seat = old.attach()
        old.send("m1")
        seat.ack()
        seat.leave(clean=True)
        old.pass_time(1.0)
        [item] = wired(pack(old.box(), old.clock.now))
        assert item.linger_ms == 0

    def test_a_message_to_oneself_stays_one(self) -> None:
        """Its own session gets no copy from the new owner either."""
        old = Office()
        mine, other = old.attach("phone", session="mine"), old.attach("laptop")
        assert other.attachment is not None
        other.attachment.outlet = None
        old.send("m1", sender="bob", origin="mine")
        new = gaining(old)
        hand_over(old, new)
        mine, other = follow(mine, new), follow(other, new)
        new.mailboxes.serve([SLOT])
        assert (mine.ids, other.ids) == ([], ["m1"])

    def test_a_client_that_comes_anew_is_told_what_it_may_have_seen(self) -> None:
        """That a letter was on its way goes along."""
        old = Office()
        seat = old.attach()
        old.send("m1")
        assert seat.attachment is not None
        seat.attachment.outlet = None
        old.send("m2")
        new = moved(old)
        fresh = new.attach("laptop")
        assert (fresh.ids, fresh.marked) == (["m1", "m2"], ["m1"])

    def test_an_empty_mailbox_goes_over(self) -> None:
        """Its item carries the floor: a client at the end of it resumes, and misses nothing."""
        old = Office()
        seat = old.attach()
        old.send("m1")
        seat.ack()
        old.pass_time(61)
        new = gaining(old)
        [item] = hand_over(old, new)
        assert (item.letters, item.floor) == ([], (EPOCH, 1))
        new.mailboxes.serve([SLOT])
        assert new.attach("a", resume=f"{EPOCH}-1").resumed is True
        assert new.attach("b", resume=f"{EPOCH}-0").resumed == "gap"


class TestHistory:
    """How far back a client can resume behind the change."""

    def test_the_end_of_it_goes_along(self) -> None:
        """A client that was away during the change gets what it missed."""
        old = Office()
        seat = old.attach()
        for index in range(10):
            old.send(f"m{index}")
            seat.ack()
        new = moved(old)
        back = new.attach("laptop", resume=f"{EPOCH}-4")
        assert (back.resumed, back.numbers) == (True, [5, 6, 7, 8, 9, 10])

    def test_of_what_is_older_the_fates_alone(self) -> None:
        """64 KiB of text; before them the client is told of the gap, and repeats are still known."""
        old = Office()
        seat = old.attach()
        for index in range(100):
            old.send(f"m{index}", data=b'"%s"' % (b"x" * 2000))
            seat.ack()
        new = gaining(old)
        items = hand_over(old, new)
        texts = [letter for item in items for letter in item.letters if letter.body is not None]
        assert HISTORY_BYTES - 3000 < sum(len(letter.body or b"") for letter in texts) <= HISTORY_BYTES
        assert sum(len(item.letters) for item in items) == 100
        new.mailboxes.serve([SLOT])
        first = texts[0].number
        good = new.attach("a", resume=f"{EPOCH}-{first - 1}")
        assert (good.resumed, good.numbers, good.closed) == (True, list(range(first, 101)), None)
        for resume in (first - 2, first - 50, 1, 0):
            bad = new.attach("b", resume=f"{EPOCH}-{resume}")
            assert (bad.resumed, bad.got, bad.closed) == ("gap", [], None)
        new.send("m0", again=True)
        assert new.told("m0") == [("n1", "delivered", None)]

    def test_what_the_old_owner_had_dropped_stays_dropped(self) -> None:
        """Its fates go along, its text could not: before the history there is a gap."""
        old = Office()
        seat = old.attach()
        for index in range(300):
            old.send(f"m{index}")
            seat.ack()
        assert old.box().floor == (EPOCH, 44)
        new = moved(old)
        assert new.box().floor == (EPOCH, 44)
        good = new.attach("a", resume=f"{EPOCH}-44")
        assert (good.resumed, len(good.got), good.closed) == (True, 256, None)
        bad = new.attach("b", resume=f"{EPOCH}-43")
        assert (bad.resumed, bad.got, bad.closed) == ("gap", [], None)

    def test_behind_an_open_letter_all_keeps_its_text(self) -> None:
        """A session that starts at the oldest open letter would else find the next one gone."""
        old = Office()
        mine, other = old.attach("phone", session="mine"), old.attach("laptop")
        assert other.attachment is not None
        other.attachment.outlet = None
        old.send("m0")
        mine.ack()
        old.send("own", sender="bob", origin="mine")
        for index in range(1, 61):
            old.send(f"m{index}", data=b'"%s"' % (b"x" * 2000))
            mine.ack()
        new = gaining(old)
        items = hand_over(old, new)
        assert [letter.id for item in items for letter in item.letters if letter.body is None] == ["m0"]
        laptop, fresh = follow(other, new), new.attach("tablet")
        new.mailboxes.serve([SLOT])
        behind = [f"m{index}" for index in range(1, 61)]
        assert fresh.ids == ["own", *behind]
        assert (laptop.closed, fresh.closed) == (CloseCode.SLOW_CONSUMER, None)

    def test_its_bytes_are_counted_right_at_the_new_owner(self) -> None:
        """Whatever was handed over is out of the sum once it is forgotten."""
        old = Office()
        mine = old.attach("phone", session="mine")
        old.attach("laptop")
        old.send("own", sender="bob", origin="mine")
        for index in range(60):
            old.send(f"m{index}", data=b'"%s"' % (b"x" * 2000))
            mine.ack()
        new = moved(old)
        box = new.box()
        new.pass_time(61)
        assert (box.letters, box.kept_bytes, box.unsettled_bytes) == ([], 0, 0)


class TestChunks:
    """A mailbox goes in items of bounded size."""

    def test_a_large_mailbox_goes_in_several(self) -> None:
        """Receipts get in between; the letters keep their order, nothing is missing, nothing doubled."""
        old = Office()
        seat = old.attach()
        assert seat.attachment is not None
        seat.attachment.outlet = None
        for index in range(100):
            old.send(f"m{index}", data=b'"%s"' % (b"x" * 10_000))
        new = gaining(old)
        items = hand_over(old, new)
        assert len(items) >= 100 * 10_000 // CHUNK_BYTES
        sizes = [sum(len(letter.body or b"") for letter in item.letters) for item in items]
        assert max(sizes) < CHUNK_BYTES + 11_000
        assert {item.floor for item in items} == {(EPOCH, 0)}
        back = follow(seat, new)
        new.mailboxes.serve([SLOT])
        while len(back.got) < 100:
            back.ack()
        assert back.ids == [f"m{index}" for index in range(100)]

    def test_many_small_letters_are_cut_too(self) -> None:
        """What stands beside the text counts."""
        old = Office()
        seat = old.attach()
        for index in range(4000):
            old.send(f"m{index}")
            seat.ack()
        items = list(pack(old.box(), old.clock.now))
        assert len(items) > 3
        assert all(len(peer.encode(item)) < peer.BATCH_BYTES for item in items)
