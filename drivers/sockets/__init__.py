"""Host ports held by sockets, and the relay for what NAT cannot bring to a container.

backend     which ports are held, and by what: the Backend of ``Hold``
binding     how a port is held so that nobody binds it beside us
relay       what serves the held sockets of holds with a ``relay``; one thread for all of them
poll        that thread
tcp, udp    connections, and flows
admission   who may use a relayed port
"""

from drivers.sockets.backend import SocketsBackend
from drivers.sockets.relay import Limits

__all__ = ["Limits", "SocketsBackend"]
