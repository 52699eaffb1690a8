"""Every method of Docker's protocols, and a good body for each that needs one."""

from plugin import wire

NETWORK = "5f" * 32
ENDPOINT = "e0" * 32
OF_ENDPOINT: dict[str, object] = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}
METHODS = {method.path: method for method in vars(wire).values() if isinstance(method, wire.Method)}
NEED_NO_BODY = sorted(path for path, method in METHODS.items() if method.request is wire.NOTHING)
NEED_A_BODY = sorted(METHODS.keys() - set(NEED_NO_BODY))

BODIES: dict[str, dict[str, object]] = {
    "/NetworkDriver.GwAllocCheck": {"Options": {}},
    "/NetworkDriver.AllocateNetwork": {"NetworkID": NETWORK, "Options": None, "IPv4Data": [], "IPv6Data": None},
    "/NetworkDriver.CreateNetwork": {"NetworkID": NETWORK},
    "/NetworkDriver.DeleteNetwork": {"NetworkID": NETWORK},
    "/NetworkDriver.CreateEndpoint": OF_ENDPOINT | {"Interface": {"Address": "10.9.0.2/24"}},
    "/NetworkDriver.DeleteEndpoint": OF_ENDPOINT,
    "/NetworkDriver.Join": OF_ENDPOINT | {"SandboxKey": "/var/run/docker/netns/0123456789ab"},
    "/NetworkDriver.Leave": OF_ENDPOINT,
    "/NetworkDriver.ProgramExternalConnectivity": OF_ENDPOINT,
    "/NetworkDriver.RevokeExternalConnectivity": OF_ENDPOINT,
    "/NetworkDriver.DiscoverNew": {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.2", "Self": False}},
    "/NetworkDriver.DiscoverDelete": {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.2", "Self": False}},
}
"""A good body for every method of NetworkDriver that needs one."""

NO_ADDRESSES = {"Address": "", "AddressIPv6": ""}
