"""Who is at the other end of a peer link: both nodes prove that they hold the cluster's secret. Pure.

    dialer                      acceptor
    Hello  ------------------>
           <------------------  Hello
    Proof  ------------------>             up to here a stranger learns names and versions, and nothing to try
           <------------------  Proof      secrets against

Each proof is an HMAC by the secret over both hellos as they were sent (cluster, names, incarnations, epochs,
versions, nonces) and over the role of the one who proves. It fits this connection and this direction alone: a
recorded or reflected one is worth nothing. Who answers at a member's address is shown a dialer's proof, so a
secret has to be longer than can be guessed.

The words of a `ProofRefused` are for this node's log; what the other side is told helps nobody to guess.
"""

import hmac
import secrets
from collections.abc import Callable

import msgspec

from ring.protocol.codes import BadRequest, CloseCode, ErrorCode, RingError
from ring.protocol.names import check_name
from ring.protocol.peer import NEWEST_VERSION, OLDEST_VERSION, Hello, Proof, decode_hello, encode

NONCE_BYTES = 32
HANDSHAKE_BYTES = 2048
"""The longest frame of a handshake: a hello with three names of the greatest length has less."""

_LABEL = b"ring.peer.v1 "

Admit = Callable[[Hello], str | None]
"""Asked about a node that is otherwise acceptable: None, or why it can't be linked now."""


class ProofRefused(RingError):
    """The other side is not to be linked; `str()` says to this node's operator why, and what to check.

    Attributes:
        close_code, reason: what the other side is told.
        answer: a frame that it gets before the close, so that it can tell for itself; b"" for none.
    """

    code = ErrorCode.FORBIDDEN

    def __init__(self, words: str, close_code: CloseCode, reason: str, answer: bytes = b"") -> None:
        super().__init__(words)
        self.close_code = close_code
        self.reason = reason
        self.answer = answer


def hello(cluster: str, name: str, incarnation: str, epoch: int) -> Hello:
    """This node's hello for one connection, with a nonce that no other has."""
    return Hello(
        cluster=cluster,
        name=name,
        incarnation=incarnation,
        oldest=OLDEST_VERSION,
        newest=NEWEST_VERSION,
        epoch=epoch,
        nonce=secrets.token_bytes(NONCE_BYTES),
    )


class Handshake:
    """One side of the mutual proof on one connection.

    Args:
        mine: this node's hello, made for this connection.
        secret: the cluster's.
        dials: the name of the node that this side has dialled; None on the accepting side.
        admit: asked once, at the last moment before this side commits itself: a dialer before it proves
            itself, an acceptor once the dialer is proven.
    """

    __slots__ = ("_admit", "_dials", "_heard", "_mine", "_secret", "_sent", "peer", "proven")

    def __init__(self, mine: Hello, secret: bytes, *, dials: str | None, admit: Admit) -> None:
        self._mine = mine
        self._secret = secret
        self._dials = dials
        self._admit = admit
        self._sent = encode(mine)
        self._heard = b""
        self.peer: Hello | None = None
        self.proven = False
        """True once the other side has proven itself; `peer` says who it is."""

    def start(self) -> bytes:
        """The frame that this side sends first; b"" where it has to listen first."""
        return b"" if self._dials is None else self._sent

    def receive(self, payload: bytes) -> bytes:
        """Takes the other side's next frame; returns the one that answers it, b"" for none.

        Raises:
            ProofRefused: the connection has to be closed.
        """
        if len(payload) > HANDSHAKE_BYTES:
            raise ProofRefused(f"sent {len(payload)} bytes for a hello", CloseCode.TOO_BIG, "hello too long")
        try:
            message = decode_hello(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _malformed(f"sent no hello: {error}") from None
        if type(message) is Hello and self.peer is None:
            return self._greeted(message, payload)
        if type(message) is Proof and self.peer is not None and not self.proven:
            return self._proved(message, self.peer)
        raise _malformed(f"sent a {type(message).__name__.lower()} out of turn")

    def _greeted(self, theirs: Hello, payload: bytes) -> bytes:
        _check_form(theirs)
        self.peer, self._heard = theirs, payload
        # An acceptor shows its hello even to those it refuses: both nodes' logs can then name what differs.
        answer = self._sent if self._dials is None else b""
        words = self._difference(theirs)
        if words is not None:
            raise ProofRefused(words, CloseCode.FORBIDDEN, "refused", answer)
        if self._dials is None:
            return answer
        self._check_admitted(theirs)
        return encode(Proof(self._mac(by_dialer=True)))

    def _proved(self, proof: Proof, theirs: Hello) -> bytes:
        accepting = self._dials is None
        if not hmac.compare_digest(proof.mac, self._mac(by_dialer=accepting)):
            words = "proved another secret: check that both nodes are given the same cluster secret"
            raise ProofRefused(words, CloseCode.FORBIDDEN, "refused")
        if accepting:
            self._check_admitted(theirs)
        self.proven = True
        return encode(Proof(self._mac(by_dialer=False))) if accepting else b""

    def _difference(self, theirs: Hello) -> str | None:
        """Why these two nodes can never be linked as they are configured; None if they can."""
        mine = self._mine
        if theirs.cluster != mine.cluster:
            return (
                f"is of cluster {theirs.cluster!r}, this node of {mine.cluster!r}: "
                "check the cluster name and the peer address of both"
            )
        if theirs.oldest > mine.newest or mine.oldest > theirs.newest:
            return (
                f"speaks peer protocol {theirs.oldest}-{theirs.newest}, this node "
                f"{mine.oldest}-{mine.newest}: upgrade the older node, one release at a time"
            )
        if self._dials is not None and theirs.name != self._dials:
            return f"answers as {theirs.name!r}: check the peer address that {self._dials!r} advertises"
        if theirs.name == mine.name:
            return f"has this node's own name, {mine.name!r}: give each node a name of its own"
        return None

    def _check_admitted(self, theirs: Hello) -> None:
        words = self._admit(theirs)
        if words is not None:
            raise ProofRefused(words, CloseCode.TRY_AGAIN_LATER, "not now")

    def _mac(self, *, by_dialer: bool) -> bytes:
        role = b"dialer" if by_dialer else b"acceptor"
        hellos = (self._heard, self._sent) if self._dials is None else (self._sent, self._heard)
        # Lengths first: no two pairs of hellos may run together into the same bytes.
        parts = [part for text in (_LABEL + role, *hellos) for part in (len(text).to_bytes(4, "big"), text)]
        return hmac.digest(self._secret, b"".join(parts), "sha256")


def _check_form(theirs: Hello) -> None:
    try:
        check_name(theirs.cluster, "cluster")
        check_name(theirs.name, "name")
        check_name(theirs.incarnation, "incarnation")
    except BadRequest as error:
        raise _malformed(f"sent a bad hello: {error}") from None
    if len(theirs.nonce) != NONCE_BYTES or not 0 <= theirs.oldest <= theirs.newest or theirs.epoch < 0:
        raise _malformed("sent a bad hello: its nonce, versions or epoch")


def _malformed(words: str) -> ProofRefused:
    return ProofRefused(words, CloseCode.PROTOCOL_ERROR, "not a peer's hello")
