"""A load of POST requests from a process of its own: python -m tests.bench.load PORT PATH < request.json

Keep-alive connections send one request after the other, each with a delivery id of its own. stdin is
{"headers": {…}, "body": "…", "connections": N, "warm_up": S, "seconds": S}; stdout is
{"seconds": S, "latencies": [S, …], "failed": N}. What happens during the warm-up is not counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid

ID = "X-GitHub-Delivery"


class Connection(asyncio.Protocol):
    def __init__(self, head: bytes, body: bytes, begin: float, end: float) -> None:
        self._head = head
        self._body = body
        self._begin = begin
        self._end = end
        self._answer = b""
        self._sent = 0.0
        self.latencies: list[float] = []
        self.failed = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        now = time.perf_counter()
        if self._begin <= now < self._end:
            if head.startswith(b"HTTP/1.1 2"):
                self.latencies.append(now - self._sent)
            else:
                self.failed += 1
        if now < self._end:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self._end:
            self.failed += 1
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._answer = b""
        self._sent = time.perf_counter()
        self._transport.write(self._head % uuid.uuid4().hex.encode() + self._body)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def main(port: int, path: str) -> None:
    asked = json.load(sys.stdin)
    body = asked["body"].encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in asked["headers"].items()]
    head = "\r\n".join([*lines, f"{ID}: %s", "", ""]).encode()
    begin = time.perf_counter() + asked["warm_up"]
    end = begin + asked["seconds"]
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(asked["connections"]):
        _, connection = await loop.create_connection(
            lambda: Connection(head, body, begin, end), "127.0.0.1", port
        )
        connections.append(connection)
    await asyncio.gather(*(connection.done for connection in connections))
    answer = {
        "seconds": asked["seconds"],
        "latencies": [latency for connection in connections for latency in connection.latencies],
        "failed": sum(connection.failed for connection in connections),
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
