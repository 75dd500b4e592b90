"""Python imports this at its start where tools/offline.py put it on the path: sockets reach this machine only."""

import socket
from typing import Any


def _allowed(family: int, address: Any) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True  # a socket of this machine's own kind
    host = str(address[0])
    return host.startswith("127.") or host in ("localhost", "::1")


class LoopbackSocket(socket.socket):
    """A socket that connects to this machine only."""

    def connect(self, address: Any) -> None:
        """Connects, or says that the network is blocked."""
        if not _allowed(self.family, address):
            raise OSError(f"the network is blocked: {address}")
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        """Connects, or says that the network is blocked."""
        if not _allowed(self.family, address):
            raise OSError(f"the network is blocked: {address}")
        return super().connect_ex(address)


socket.socket = LoopbackSocket  # type: ignore[misc]
