"""Which base URLs a model may be reached at."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from optograph.errors import UserError

# Cloud metadata services hand out credentials to whoever asks.
_METADATA_HOSTS = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(one) for one in ("100.100.100.200", "192.0.0.192", "fd00:ec2::254")
)


def check_url(url: str) -> str:
    """Check the base URL of an endpoint and give it back without a trailing slash.

    Args:
        url: Such as ``"http://127.0.0.1:8000/v1"``.

    Raises:
        UserError: For another scheme than http or https, credentials or a query in the URL, a missing host, or an
            address of link-local or cloud metadata services.
    """
    shown = url if "@" not in url else f"…@{url.rpartition('@')[2]}"
    try:
        parts = urlsplit(url)
        port_is_bad = parts.port == 0
    except ValueError:
        raise UserError(f"{shown!r} is no URL; write it like 'http://127.0.0.1:8000/v1'") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port_is_bad:
        raise UserError(f"{shown!r} is no http(s) URL; write it like 'http://127.0.0.1:8000/v1'")
    if parts.username is not None or parts.password is not None:
        raise UserError(f"the URL {shown!r} carries credentials; give the key by OPENAI_API_KEY or api_key instead")
    if parts.query or parts.fragment:
        raise UserError(f"the URL {shown!r} carries a query or fragment; give the bare base URL")
    address = _address(parts.hostname)
    if parts.hostname.rstrip(".") in _METADATA_HOSTS or (address is not None and _is_forbidden(address)):
        raise UserError(f"the URL {shown!r} points to a link-local or metadata address, where no model is served")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Tell whether a checked URL points to this machine."""
    host = urlsplit(url).hostname or ""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read a numeric host, also in the odd forms that the resolver takes (``0xA9FEA9FE``, ``2852039166``)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_forbidden(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_link_local or address.is_multicast or address in _METADATA_ADDRESSES
