"""A session's commands about rooms: what is checked before the rooms of the node hear of them."""

from typing import TYPE_CHECKING

from ring.edge.gateway import Gateway
from ring.protocol import client
from ring.protocol.codes import BadRequest, ErrorCode
from ring.protocol.names import check_id, check_name
from ring.rooms.member import Member

if TYPE_CHECKING:
    from ring.edge.session import ClientSession

BACKLOG_SHARE = 4
"""Of what may wait for a client, this part is for rooms that drop their oldest; the rest is for all else."""

RoomCommand = client.Join | client.Leave | client.Publish


def obey(gateway: Gateway, session: "ClientSession", message: RoomCommand) -> None:
    """Does what a client asks for, or tells it why not: exactly one answer, now or when Redis has answered.

    What a session has to do with rooms is made here, with its first command: most never have one.
    """
    if session.socket is None:
        return
    member = session.member
    if member is None:
        member = session.member = Member(
            session.sid,
            session.user,
            session.socket,
            gateway.output_bytes // BACKLOG_SHARE,
            gateway.census.errors,
        )
    frame_id = message.id
    try:
        room = check_name(message.room, "room")
        check_id(frame_id)
        if type(message) is client.Publish:
            _publish(gateway, member, message)
        elif type(message) is client.Join:
            _check_in_flight(gateway, member)
            gateway.rooms.join(member, room, frame_id)
        else:
            gateway.rooms.leave(member, room, frame_id)
    except BadRequest as error:
        member.refuse(frame_id, error.code, str(error))


def _publish(gateway: Gateway, member: Member, message: client.Publish) -> None:
    data = bytes(message.data)
    if len(data) > gateway.message_bytes:
        raise BadRequest(f"data: at most {gateway.message_bytes} bytes of JSON", code=ErrorCode.TOO_LARGE)
    client.check_depth(data)
    _check_in_flight(gateway, member)
    gateway.rooms.publish(member, message.room, message.id, data, echo=message.echo)


def _check_in_flight(gateway: Gateway, member: Member) -> None:
    if member.unanswered >= gateway.in_flight:
        raise BadRequest(f"at most {gateway.in_flight} room commands without an answer", code=ErrorCode.BUSY)
