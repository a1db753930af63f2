"""Keep a launch on this machine: nothing it opens can be reached from the network."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

_INTERFACE = "lo0" if sys.platform == "darwin" else "lo"

# For the ranks: Gloo and NCCL would pick an interface by host name.
SOCKETS_ON_LOOPBACK = {"GLOO_SOCKET_IFNAME": _INTERFACE, "NCCL_SOCKET_IFNAME": _INTERFACE}


@contextmanager
def loopback_store() -> Iterator[int]:
    """Host the rendezvous store on loopback, on a free port.

    A TCPStore left to itself listens on every interface, whatever host name it is given; handed a
    listening socket, it keeps to that one.

    Yields:
        The port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        port = listener.getsockname()[1]
        store = dist.TCPStore(
            "127.0.0.1",
            port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
    try:
        yield port
    finally:
        del store  # a traceback kept by the notebook must not keep the port open
