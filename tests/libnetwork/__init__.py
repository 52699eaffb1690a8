"""The engine, played: libnetwork's calls in libnetwork's order, and containers that are bare network namespaces.

    with Libnetwork(socket, netns=host.netns, engine="28.5.2") as docker:
        network = docker.create_network(subnet="10.9.0.0/24")
        one, two = docker.start_container(network), docker.start_container(network)
        one.run("ping", "-c1", str(two.address(network)))

A start takes some tens of milliseconds where dockerd takes a second, so whole matrices run on it. The sequences, the
fields and the roll-backs are those recorded from Docker Engine 20.10.24 and 28.5.2. The namespaces are called
``ln-...`` and are gone when the ``with`` ends, however it ends.
"""

from tests.libnetwork.engine import Container, Libnetwork
from tests.libnetwork.memory import Endpoint, Network
from tests.libnetwork.wire import DIALECTS, CallRefusedError

__all__ = ["DIALECTS", "CallRefusedError", "Container", "Endpoint", "Libnetwork", "Network"]
