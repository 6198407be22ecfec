"""Finds the proxy for a URL in environment variables or in the system settings.

This module parses the variable ``NO_PROXY`` itself, because the standard library does not
support networks (``10.0.0.0/8``) and IPv6 addresses in this variable.
"""

from __future__ import annotations

import re
import urllib.request
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, unquote, urlsplit

from fapilog.errors import ConfigurationError
from fapilog.sinks.http.options import credentials_of, usable_url

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_PORTS: Final = {"http": 80, "https": 443}
# Matches an entry of NO_PROXY: a host, an IP address or a network, with or without brackets, and
# an optional port.  An entry that does not match may be an IPv6 address without brackets.
_ENTRY: Final = re.compile(
    r"\[?(?P<name>(?<=\[)[^]]*|[^:[\]]*)\]?(?P<bits>(?<=\])/[0-9]{1,3})?(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy.

    ``url`` contains no credentials.  ``secrets`` are the strings that messages must mask.
    """

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


def environment_proxy(url: str) -> Proxy | None:
    """Return the proxy for ``url``, or None if no proxy is used.

    The proxy is set in an environment variable or in the system settings.

    Raises:
        ConfigurationError: the proxy's URL is invalid, or the proxy is a SOCKS proxy.
    """
    target = urlsplit(url)
    host = target.hostname or ""
    proxies = urllib.request.getproxies()
    name = target.scheme if proxies.get(target.scheme) else "all"
    given = proxies.get(name)
    port = target.port or _PORTS.get(target.scheme, 0)
    if not given or is_exempt(host, port, proxies.get("no", "")) or _system_exempts(host):
        return None
    return _proxy(given, f"{name.upper()}_PROXY", f"{target.scheme.upper()}_PROXY", host)


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Return whether ``no_proxy``, the value of ``NO_PROXY``, exempts a host from the proxy.

    The value contains entries that are separated by commas or spaces.  An entry is ``*``, a
    host name (which also matches its subdomains), an address or a network.  An entry that ends
    with a port exempts only connections to this port.
    """
    host = _ascii(host.lower().rstrip("."))
    address = _address(host)
    entries = re.split(r"[\s,]+", no_proxy.lower())
    return any(_matches(host, address, port, entry) for entry in entries if entry)


def _matches(host: str, address: IPv4Address | IPv6Address | None, port: int, entry: str) -> bool:
    parts = _ENTRY.fullmatch(entry)
    name = parts["name"] + (parts["bits"] or "") if parts else entry
    if parts and parts["port"] and int(parts["port"]) != port:
        return False
    if name == "*":
        return True
    if address is not None:
        try:
            network = ip_network(name, strict=False)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)  # for ::ffff:10.0.0.1, the address 10.0.0.1
        return any(one in network for one in (address, mapped) if one is not None)
    name = _ascii(name.lstrip("*").strip("."))
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _ascii(name: str) -> str:
    """Return a host name in the ASCII form that DNS requires, such as ``xn--mnchen-3ya.de``."""
    try:
        return name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        return name  # not a valid host name, so it is compared unchanged


def _system_exempts(host: str) -> bool:
    """Return whether the system settings of macOS or Windows exempt a host from the proxy.

    Return False if an environment variable sets a proxy, because the system settings then do not
    apply.
    """
    return not urllib.request.getproxies_environment() and bool(urllib.request.proxy_bypass(host))


def _proxy(given: str, source: str, variable: str, host: str) -> Proxy:
    """Return the proxy whose URL is ``given``.

    ``source`` is the name of the setting that contains the URL, such as ``ALL_PROXY``.  If the
    URL cannot be used, raise ConfigurationError.  The error does not show the URL, which may
    contain a password.  The error advises the user to set the environment variable
    ``variable``, or to exempt ``host`` from the proxy.
    """
    given = given if "://" in given else f"http://{given}"
    url = usable_url(given)
    if url is not None:
        return Proxy(
            f"{url.scheme}://{url.netloc.rpartition('@')[2]}",
            unquote(url.username or ""),
            unquote(url.password or ""),
            _secrets(url),
        )
    what = "is not a URL of the form http://host:port"
    if given.lower().startswith("socks"):
        what = "is a SOCKS proxy, which is not supported"
    msg = (
        f"the environment's proxy ({source}) {what}: set {variable} to http://host:port, or "
        f"add {host} to NO_PROXY"
    )
    raise ConfigurationError(msg)


def _secrets(url: SplitResult) -> frozenset[str]:
    """Return the credentials in a proxy's URL, in each encoding that a response may contain."""
    password, header = url.password or "", credentials_of(url)
    pair = url.netloc.rpartition("@")[0]
    found = {password, unquote(password), pair, unquote(pair), header, header.rpartition(" ")[2]}
    return frozenset(found - {""})
