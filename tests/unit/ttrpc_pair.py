"""A client's and a server's side of the protocol, with no stream between them."""

from trioshim.ttrpc import NEED_DATA, Connection, ConnectionClosed, Event, Mode, Request, Role


def pair() -> tuple[Connection, Connection]:
    """A client and a server with nothing said yet."""
    return Connection(Role.CLIENT), Connection(Role.SERVER)


def events(connection: Connection, *pieces: bytes) -> list[Event]:
    """What the connection makes of these pieces; up to the end, if one of them is the end."""
    found = []
    for piece in pieces:
        connection.receive_data(piece)
        while (event := connection.next_event()) is not NEED_DATA:
            found.append(event)
            if isinstance(event, ConnectionClosed):
                break
    return found


def begin(mode: Mode = Mode.UNARY) -> tuple[Connection, Connection]:
    """A client and a server with one call, 1, between them."""
    client, server = pair()
    events(server, client.send(Request(1, "s", "m", mode=mode)))
    return client, server
