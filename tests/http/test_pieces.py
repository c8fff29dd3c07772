"""Bodies that lie in several pieces arrive as one."""

from __future__ import annotations

import pytest

from archiver.http.errors import InvalidResponse
from tests.http.serving import Client, Exchange, Transport, answer, run, says, says_and

MIB = 2**20
SMALL, LARGE = b"0123456789" * 100, bytes(range(256)) * (3 * MIB // 256)

BODIES: tuple[tuple[str, tuple[bytes | memoryview, ...]], ...] = (
    ("one piece", (SMALL,)),
    ("an object between what surrounds it", (b"--a\r\n", SMALL, b"\r\n--a--")),
    ("a piece of more than libcurl takes at once", (b"before", LARGE, b"after")),
    ("a view of a part of something larger", (memoryview(LARGE)[1 : 2 * MIB + 1], memoryview(SMALL)[7:])),
    ("pieces without a byte", (b"", SMALL, b"", memoryview(b""), b"end", b"")),
    ("nothing at all", ()),
    ("only pieces without a byte", (b"", b"")),
)
PIECES = pytest.mark.parametrize("pieces", [body for _, body in BODIES], ids=[says for says, _ in BODIES])


@PIECES
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_pieces_arrive_as_one_body(
    method: str, pieces: tuple[bytes | memoryview, ...], over: Transport, client: Client
) -> None:
    with over.server() as server:
        client.get(server, method=method, body=pieces)

        (exchange,) = server.exchanges
        assert exchange.line.startswith(f"{method} ")
        assert exchange.body == b"".join(pieces)
        assert exchange.header("content-length") == str(len(exchange.body))
        assert exchange.header("content-type") is None
        assert exchange.header("expect") is None
        assert exchange.header("transfer-encoding") is None


def test_one_handle_sends_bodies_of_both_kinds_in_turn(plain: Transport, client: Client) -> None:
    bodies = (b"abc", (b"d", b"e"), None, (LARGE, b"f"), (b"g",), b"", (b"h", b"i"), None)
    with plain.server() as server:
        for body in bodies:
            client.get(server, method="GET" if body is None else "POST", body=body)

        assert [(exchange.line.split(" ")[0], exchange.body) for exchange in server.exchanges] == [
            ("GET", b"") if body is None else ("POST", b"".join(body) if isinstance(body, tuple) else body)
            for body in bodies
        ]
        assert server.connections == 1


@pytest.mark.parametrize("pieces", [(b"before", SMALL, b"after"), (b"before", LARGE, b"after")])
def test_pieces_are_sent_again_from_the_beginning(
    pieces: tuple[bytes, ...], over: Transport, client: Client
) -> None:
    """The kept connection ends as the server reads the request."""
    refusal = says(answer(b"", status="404 Not Found"))
    with over.server(says(answer()), Exchange.cut, refusal) as server:
        client.get(server)
        transfer = client.get(server, method="PUT", body=pieces)

        assert transfer.resubmitted
        assert transfer.status == 404
        assert [exchange.body for exchange in server.exchanges] == [b"", b"".join(pieces), b"".join(pieces)]


def test_a_success_that_comes_before_the_pieces_were_sent_is_not_believed(
    over: Transport, client: Client
) -> None:
    with over.server(says_and(Exchange.stall, answer()), reads_bodies=False) as server:
        transfer = client.transfer(server, method="PUT", body=(bytes(15_000_000), bytes(15_000_000)))

        with pytest.raises(InvalidResponse, match="before the request was sent"):
            run(transfer)
