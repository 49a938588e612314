"""The ways by which a machine reaches others."""

import socket

import psutil


def interface_towards(address: str) -> str | None:
    """Name of the network interface by which this machine reaches `address`.

    Args:
        address: An IP address, or a host name; its own ones count too.

    Returns:
        The name as `ip link` has it; None: no interface has the address that would be
        the sender.

    Raises:
        OSError: The address cannot be resolved, or there is no way to it.
    """
    family, kind, protocol, _, target = socket.getaddrinfo(
        address, 9, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(target)  # of datagrams: chooses the way, and sends nothing
        sender = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(own.address.partition("%")[0] == sender for own in addresses):
            return name
    return None
