"""The mutual proof at the beginning of a peer link."""

from collections.abc import Callable

import msgspec
import pytest

from ring.peers.proof import HANDSHAKE_BYTES, Handshake, ProofRefused, hello
from ring.protocol.codes import CloseCode
from ring.protocol.peer import Hello, Proof, encode

SECRET = b"a secret of the cluster, long enough"


def admit_all(_: Hello) -> None:
    """Nobody is out of date."""


def dialer(
    mine: Hello | None = None,
    *,
    secret: bytes = SECRET,
    dials: str = "n2",
    admit: Callable[[Hello], str | None] = admit_all,
) -> Handshake:
    """The side of n1, which dials n2."""
    return Handshake(mine or hello("demo", "n1", "i1", 7), secret, dials=dials, admit=admit)


def acceptor(
    mine: Hello | None = None, *, secret: bytes = SECRET, admit: Callable[[Hello], str | None] = admit_all
) -> Handshake:
    """The side of n2."""
    return Handshake(mine or hello("demo", "n2", "i2", 8), secret, dials=None, admit=admit)


def changed(original: Hello, **fields: object) -> Hello:
    """A hello in which somebody changed something."""
    return msgspec.structs.replace(original, **fields)


def run(one: Handshake, other: Handshake) -> None:
    """Carries frames to and fro until nobody says anything more."""
    assert other.start() == b""
    frame, receiver, sender = one.start(), other, one
    while frame:
        frame, receiver, sender = receiver.receive(frame), sender, receiver


def refusal(handshake: Handshake, frame: bytes) -> ProofRefused:
    """How the handshake refuses this frame."""
    with pytest.raises(ProofRefused) as caught:
        handshake.receive(frame)
    assert not handshake.proven
    return caught.value


def test_two_holders_of_the_secret_prove_themselves_to_each_other() -> None:
    """Both sides end proven, and know who the other is."""
    one, other = dialer(), acceptor()
    run(one, other)
    assert one.proven
    assert other.proven
    assert one.peer is not None
    assert (one.peer.name, one.peer.incarnation, one.peer.epoch) == ("n2", "i2", 8)
    assert other.peer is not None
    assert (other.peer.name, other.peer.incarnation, other.peer.epoch) == ("n1", "i1", 7)


def test_an_acceptor_is_not_proven_by_a_hello_alone() -> None:
    """The hello is no proof, and answering it is none either."""
    one, other = dialer(), acceptor()
    answer = other.receive(one.start())
    assert not other.proven
    assert one.receive(answer)
    assert not one.proven


def test_a_stranger_gets_no_proof_from_an_acceptor() -> None:
    """Whoever cannot prove itself is shown nothing that a secret could be tried against."""
    stranger, other = dialer(secret=b"a guess"), acceptor()
    frames = [other.receive(stranger.start())]
    refused = refusal(other, stranger.receive(frames[0]))
    assert refused.answer == b""
    assert type(msgspec.msgpack.decode(frames[0], type=Hello | Proof)) is Hello


def test_another_secret_is_refused_without_a_hint() -> None:
    """The log says what to check; the other side is told nothing but that it is refused."""
    one, other = dialer(secret=b"another secret"), acceptor()
    refused = refusal(other, one.receive(other.receive(one.start())))
    assert refused.close_code == CloseCode.FORBIDDEN
    assert refused.reason == "refused"
    assert "check that both nodes are given the same cluster secret" in str(refused)


def test_a_dialer_refuses_an_acceptor_that_does_not_hold_the_secret() -> None:
    """The proof is mutual: an impostor that lets everybody in is not believed."""
    one, other = dialer(), acceptor()
    one.receive(other.receive(one.start()))
    refused = refusal(one, encode(Proof(b"\0" * 32)))
    assert (refused.close_code, refused.reason) == (CloseCode.FORBIDDEN, "refused")


def test_a_reflected_proof_is_worth_nothing() -> None:
    """A dialer's own proof, sent back to it, is not that of an acceptor."""
    one, other = dialer(), acceptor()
    proof = one.receive(other.receive(one.start()))
    assert refusal(one, proof).close_code == CloseCode.FORBIDDEN


def test_a_reflected_hello_is_refused() -> None:
    """A dialer that is shown its own hello does not prove itself to it."""
    one = dialer()
    assert "answers as 'n1'" in str(refusal(one, one.start()))


def test_a_recorded_dialer_is_refused() -> None:
    """What a dialer once sent proves nothing on another connection: the acceptor's nonce is new."""
    one, other = dialer(), acceptor()
    first = one.start()
    second = one.receive(other.receive(first))
    other.receive(second)
    assert other.proven
    again = acceptor()
    again.receive(first)
    assert refusal(again, second).close_code == CloseCode.FORBIDDEN


def test_a_recorded_acceptor_is_refused() -> None:
    """What an acceptor once sent proves nothing to another dial."""
    one, other = dialer(), acceptor()
    first = other.receive(one.start())
    second = other.receive(one.receive(first))
    again = dialer()
    again.receive(first)
    assert refusal(again, second).close_code == CloseCode.FORBIDDEN


@pytest.mark.parametrize(
    "fields",
    [{"name": "n0"}, {"incarnation": "i9"}, {"epoch": 9}, {"newest": 9}, {"oldest": 0}, {"nonce": b"x" * 32}],
    ids=lambda fields: next(iter(fields)),
)
def test_a_dialers_hello_that_was_tampered_with_is_refused(fields: dict[str, object]) -> None:
    """Whatever somebody on the way changes in the dialer's hello, the proof no longer fits."""
    mine = hello("demo", "n1", "i1", 7)
    one, other = dialer(mine), acceptor()
    answer = other.receive(encode(changed(mine, **fields)))
    refused = refusal(other, one.receive(answer))
    assert (refused.close_code, refused.reason) == (CloseCode.FORBIDDEN, "refused")


@pytest.mark.parametrize(
    "fields",
    [{"incarnation": "i9"}, {"epoch": 9}, {"newest": 9}, {"oldest": 0}, {"nonce": b"x" * 32}],
    ids=lambda fields: next(iter(fields)),
)
def test_an_acceptors_hello_that_was_tampered_with_is_refused(fields: dict[str, object]) -> None:
    """Whatever somebody on the way changes in the acceptor's hello, the dialer's proof no longer fits."""
    mine = hello("demo", "n2", "i2", 8)
    one, other = dialer(), acceptor(mine)
    other.receive(one.start())
    proof = one.receive(encode(changed(mine, **fields)))
    assert refusal(other, proof).close_code == CloseCode.FORBIDDEN


def test_bytes_behind_a_hello_are_part_of_what_is_proven() -> None:
    """A later release may add fields to its hello: they are read over, but not left unprotected."""
    mine = hello("demo", "n1", "i1", 7)
    plain = encode(mine)
    longer = bytes([plain[0] + 1]) + plain[1:] + b"\x01"  # one element more in the array
    one, other = dialer(mine), acceptor()
    proof = one.receive(other.receive(longer))
    assert other.peer == mine
    assert refusal(other, proof).close_code == CloseCode.FORBIDDEN


def test_a_proof_that_was_tampered_with_is_refused() -> None:
    """Every bit of the proof counts."""
    one, other = dialer(), acceptor()
    proof = one.receive(other.receive(one.start()))
    assert refusal(other, proof[:-1] + bytes([proof[-1] ^ 1])).close_code == CloseCode.FORBIDDEN


def test_a_proof_cut_short_is_refused() -> None:
    """A prefix of the right proof is none."""
    one, other = dialer(), acceptor()
    proof = msgspec.msgpack.decode(one.receive(other.receive(one.start())), type=Proof)
    assert refusal(other, encode(Proof(proof.mac[:16]))).close_code == CloseCode.FORBIDDEN


def test_both_sides_learn_that_they_are_of_different_clusters() -> None:
    """The acceptor shows its hello to the one it refuses, so that both logs can say what to check."""
    one, other = dialer(hello("prod", "n1", "i1", 7)), acceptor()
    refused = refusal(other, one.start())
    assert (refused.close_code, refused.reason) == (CloseCode.FORBIDDEN, "refused")
    assert "is of cluster 'prod', this node of 'demo'" in str(refused)
    assert "is of cluster 'demo', this node of 'prod'" in str(refusal(one, refused.answer))


def test_both_sides_learn_that_their_versions_do_not_meet() -> None:
    """Each says which range the other speaks, and which its own node."""
    new = changed(hello("demo", "n1", "i1", 7), oldest=3, newest=4)
    one, other = dialer(new), acceptor()
    refused = refusal(other, one.start())
    assert (refused.close_code, refused.reason) == (CloseCode.FORBIDDEN, "refused")
    assert "speaks peer protocol 3-4, this node 1-2" in str(refused)
    assert "speaks peer protocol 1-2, this node 3-4" in str(refusal(one, refused.answer))


def test_ranges_of_versions_need_only_meet() -> None:
    """One release back works beside the current one."""
    one, other = dialer(changed(hello("demo", "n1", "i1", 7), oldest=2, newest=3)), acceptor()
    run(one, other)
    assert one.proven
    assert other.proven


def test_a_dial_that_reached_another_node_is_refused() -> None:
    """The log names both, and the address as what to check."""
    one, other = dialer(dials="n3"), acceptor()
    words = str(refusal(one, other.receive(one.start())))
    assert "answers as 'n2'" in words
    assert "the peer address that 'n3' advertises" in words


def test_two_nodes_of_one_name_are_told_so() -> None:
    """A name that was given twice is a mistake that the log names."""
    one, other = dialer(hello("demo", "n2", "i9", 7)), acceptor()
    assert "this node's own name, 'n2'" in str(refusal(other, one.start()))


def test_a_dialer_asks_whether_to_admit_before_it_proves_itself() -> None:
    """An incarnation that the ring does not have is not linked for a moment even."""
    asked = []

    def deny(theirs: Hello) -> str:
        asked.append(theirs.incarnation)
        return "is out of date"

    one, other = dialer(admit=deny), acceptor()
    refused = refusal(one, other.receive(one.start()))
    assert (refused.close_code, str(refused)) == (CloseCode.TRY_AGAIN_LATER, "is out of date")
    assert asked == ["i2"]


def test_an_acceptor_asks_whether_to_admit_only_those_who_are_proven() -> None:
    """What the ring knows of a name is not told to strangers."""
    asked = []

    def deny(theirs: Hello) -> str:
        asked.append(theirs.incarnation)
        return "is out of date"

    one, other = dialer(), acceptor(admit=deny)
    answer = other.receive(one.start())
    assert not asked
    assert refusal(other, one.receive(answer)).close_code == CloseCode.TRY_AGAIN_LATER
    assert asked == ["i1"]


@pytest.mark.parametrize(
    "fields",
    [
        {"cluster": ""},
        {"name": ""},
        {"name": "n\n1"},
        {"name": "n" * 256},
        {"incarnation": ""},
        {"nonce": b"x" * 31},
        {"nonce": b""},
        {"oldest": 2, "newest": 1},
        {"oldest": -1},
        {"epoch": -1},
    ],
    ids=str,
)
def test_a_malformed_hello_is_a_violation(fields: dict[str, object]) -> None:
    """Names that may not be, a short nonce, impossible numbers: 1002, and nothing is answered."""
    refused = refusal(acceptor(), encode(changed(hello("demo", "n1", "i1", 7), **fields)))
    assert (refused.close_code, refused.answer) == (CloseCode.PROTOCOL_ERROR, b"")


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x91\x64", encode(["text"]), b"\x93\x64\xa1\xff\xa1"])
def test_a_frame_that_is_no_hello_is_a_violation(frame: bytes) -> None:
    """Whatever cannot be read is 1002."""
    assert refusal(acceptor(), frame).close_code == CloseCode.PROTOCOL_ERROR


def test_a_frame_beyond_the_size_of_a_handshake_is_not_looked_at() -> None:
    """The handshake is bounded: 1009."""
    long = encode(changed(hello("demo", "n1", "i1", 7), nonce=b"x" * HANDSHAKE_BYTES))
    assert refusal(acceptor(), long).close_code == CloseCode.TOO_BIG


def test_the_longest_names_fit() -> None:
    """Cluster, name and incarnation of 255 bytes each are within the size of a handshake."""
    one = dialer(hello("ä" * 127, "1" * 255, "i" * 255, 2**48), dials="2" * 255)
    other = acceptor(hello("ä" * 127, "2" * 255, "i" * 255, 2**48))
    run(one, other)
    assert one.proven


def test_a_proof_before_any_hello_is_a_violation() -> None:
    """There is nothing yet that could be proven."""
    refused = refusal(acceptor(), encode(Proof(b"\0" * 32)))
    assert (refused.close_code, str(refused)) == (CloseCode.PROTOCOL_ERROR, "sent a proof out of turn")


def test_a_second_hello_is_a_violation() -> None:
    """Who has introduced itself stays who it is."""
    one, other = dialer(), acceptor()
    other.receive(one.start())
    assert str(refusal(other, one.start())) == "sent a hello out of turn"


def test_every_hello_has_its_own_nonce() -> None:
    """Two connections never share one."""
    assert hello("demo", "n1", "i1", 7).nonce != hello("demo", "n1", "i1", 7).nonce
