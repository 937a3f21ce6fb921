"""One POST to an address that somebody else named: to public addresses alone, unless the settings name its network.

The name is resolved once, every address that it has is judged, and the connection goes to one that was: a name that
resolves otherwise a moment later (DNS rebinding) gains nothing. Redirects aren't followed, proxies aren't asked.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from schemas.errors import Permanent, Transient

Address = IPv4Address | IPv6Address

#: What counts as public, at least to some versions of Python, and is not: where clouds answer their machines (Azure's;
#: Oracle's in the network for protocols), and a gateway's own prefix.
_REFUSED = [
    ip_network(network)
    for network in (
        "168.63.129.16/32",
        "192.0.0.0/24",
        "64:ff9b:1::/48",
        "::/96",  # IPv4 in IPv6, as it was once written
        "::ffff:0:0:0/96",  # the same, translated
        "fec0::/10",  # once a site's own
    )
]
#: Addresses of a name that are tried at most.
_ADDRESSES = 3
_NAT64 = ip_network("64:ff9b::/96")


def post(url: str, content: bytes, headers: dict[str, str], timeout_s: float, networks: Sequence[str]) -> int:
    """Send it; the status of the answer, whose body is not read.

    Raise Permanent for an address that may not be asked, Transient if there is no answer in time.
    """
    parts = urlsplit(url)
    host, tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    addresses = resolved(host, port, networks)[:_ADDRESSES]
    try:
        with _connected(host, port, addresses, tls, timeout_s) as connection:
            connection.request("POST", target, content, {"Host": parts.netloc, "Connection": "close"} | headers)
            with connection.getresponse() as response:
                return response.status
    except (OSError, http.client.HTTPException) as error:
        raise Transient(f"{host} doesn't answer: {type(error).__name__}: {error}") from None
    except ValueError as error:  # a name or a path that can't be written in TLS or HTTP
        raise Permanent(f"{host} can't be asked: {error}", code="host_not_allowed") from None


@contextmanager
def _connected(
    host: str, port: int, addresses: Sequence[str], tls: bool, timeout_s: float
) -> Iterator[http.client.HTTPConnection]:
    """A connection to one of these very addresses, cut after `timeout_s` however slowly the other side answers."""
    connection = http.client.HTTPConnection(host, port)
    connection.sock = plain = _first(addresses, port, timeout_s)

    def cut() -> None:
        with suppress(OSError):  # of the socket itself: TLS would say good-bye first
            socket.socket.shutdown(connection.sock or plain, socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, cut)
    timer.daemon = True
    timer.start()
    try:
        if tls:
            context = ssl.create_default_context()
            connection.sock = secure = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            secure.do_handshake()
        yield connection
    finally:
        timer.cancel()
        connection.close()


def _first(addresses: Sequence[str], port: int, timeout_s: float) -> socket.socket:
    """A connection to the first address that takes one."""
    for address in addresses[:-1]:
        with suppress(OSError):
            return socket.create_connection((address, port), timeout_s)
    return socket.create_connection((addresses[-1], port), timeout_s)


def resolved(host: str, port: int, networks: Sequence[str]) -> list[str]:
    """Return a host's addresses. Raise Permanent if one may not be asked, Transient if the name doesn't resolve."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Transient(f"the name {host!r} can't be resolved: {error}") from None
    except UnicodeError:
        raise Permanent(f"{host!r} is no host name", code="host_not_allowed") from None
    addresses = [str(address[0]) for *_, address in found]
    for address in addresses:
        check_address(host, ip_address(address.partition("%")[0]), networks)
    return addresses


def check_literal(host: str, networks: Sequence[str]) -> None:
    """Raise Permanent if the host is an address, not a name, and may not be asked."""
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return
    check_address(host, address, networks)


def check_address(host: str, address: Address, networks: Sequence[str]) -> None:
    """Raise Permanent unless the address is public, or in one of the networks that are allowed."""
    inner = _inner(address)
    if any(inner in ip_network(network) for network in networks):
        return
    if not inner.is_global or inner.is_multicast or any(inner in network for network in _REFUSED):
        raise Permanent(
            f"{host!r} is at {inner}, which is no public address; NIGHTSHIFT_NOTIFY_NETWORKS can allow its network",
            code="address_not_allowed",
        )


def _inner(address: Address) -> Address:
    """Return the IPv4 address that a gateway or the kernel translates an IPv6 address to, or else the address."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address
