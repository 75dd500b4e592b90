"""What every test shares: one thread, checked shapes, no screen, and no network beyond this machine."""

import ipaddress
import os
import socket
import threading
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pytest
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)  # results do not depend on the machine's cores, and parallel test runs do not fight

# Every shape written in a signature of the package is checked by beartype while the tests run. The hook has
# to be in place before the package is first imported, so it is installed here and stays.
install_import_hook("cdt_lite", "beartype.beartype")


@pytest.fixture(autouse=True, scope="module")
def no_answer_goes_on():
    """Fails where a checked answer still runs: its thread would make every later test ten times slower."""
    yield
    end = time.monotonic() + 5
    while (left := [t.name for t in threading.enumerate() if "(work)" in t.name]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are of one order in every test: a library that borrows OpenMP's threads gives back as many as it finds."""
    torch.set_num_threads(1)


def is_loopback(address: object) -> bool:
    """Says whether a socket address stays on this machine (Unix sockets and loopback do)."""
    if not isinstance(address, tuple):
        return True
    host = address[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuses every connection that would leave this machine, so that no test depends on the network."""

    def guard(original):
        def connect(self, address, *args):
            if self.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(address):
                raise OSError(f"a test tried to reach {address}: tests may use loopback only")
            return original(self, address, *args)

        return connect

    monkeypatch.setattr(socket.socket, "connect", guard(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guard(socket.socket.connect_ex))
    look_up = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and not is_loopback((name,)):
            raise socket.gaierror(f"a test tried to look up {name}: tests may use loopback only")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(scope="session")
def real_screen_dir() -> Path:
    """The folder with the real screen's file, named by CDT_LITE_MIRROR; the test is skipped without it."""
    folder = os.environ.get("CDT_LITE_MIRROR")
    if not folder or not (Path(folder) / "lowmoi_example_data.rda").is_file():
        pytest.skip("CDT_LITE_MIRROR names no folder with lowmoi_example_data.rda")
    return Path(folder)
