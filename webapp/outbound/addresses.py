"""Which addresses may be called: global unicast and nothing else. Pure.

The tables follow IANA's special-purpose registries for IPv4 and IPv6. They stand here, and not in the hands of
`ipaddress.is_global`, whose answers differ between releases of Python.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from webapp.settings.targets import Address

#: IPv4 networks that are not the public internet, and what they are.
_SPECIAL_4: dict[IPv4Network, str] = {
    IPv4Network(network): kind
    for network, kind in {
        "0.0.0.0/8": "this network",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared with a carrier (CGNAT)",
        "127.0.0.0/8": "loopback",
        "168.63.129.16/32": "a cloud's own service",
        "169.254.0.0/16": "link-local",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "reserved",
        "192.0.2.0/24": "documentation",
        "192.31.196.0/24": "reserved (AS112)",
        "192.52.193.0/24": "reserved (AMT)",
        "192.88.99.0/24": "a 6to4 relay",
        "192.168.0.0/16": "private",
        "192.175.48.0/24": "reserved (AS112)",
        "198.18.0.0/15": "benchmarking",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
    }.items()
}

#: IPv6 networks with a name of their own, the narrower before the wider.
_SPECIAL_6: dict[IPv6Network, str] = {
    IPv6Network(network): kind
    for network, kind in {
        "::/128": "unspecified",
        "::1/128": "loopback",
        "::/96": "IPv4-compatible",
        "64:ff9b:1::/48": "a local NAT64",
        "2001::/32": "Teredo",
        "2001:db8::/32": "documentation",
        "2001::/23": "reserved",
        "2002::/16": "6to4",
        "2620:4f:8000::/48": "reserved (AS112)",
        "3fff::/20": "documentation",
        "fc00::/7": "private (unique local)",
        "fe80::/10": "link-local",
        "fec0::/10": "site-local",
        "ff00::/8": "multicast",
    }.items()
}

#: All of IPv6 that is given out as global unicast.
_GLOBAL_6 = IPv6Network("2000::/3")
#: NAT64: the last 32 bits are the IPv4 address that is reached.
_NAT64 = IPv6Network("64:ff9b::/96")
_LOW_32_BITS = 0xFFFF_FFFF


def reached(address: Address) -> Address:
    """The address a connection ends at: the IPv4 address inside a mapped or NAT64 one, else the address itself.

    Example:
        >>> from ipaddress import ip_address
        >>> reached(ip_address("::ffff:127.0.0.1"))
        IPv4Address('127.0.0.1')
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & _LOW_32_BITS)
    return address


def why_refused(address: Address) -> str | None:
    """What makes an address one that must not be called, in a few words; None when it is global unicast.

    Example:
        >>> from ipaddress import ip_address
        >>> why_refused(ip_address("169.254.169.254"))
        'link-local'
        >>> why_refused(ip_address("93.184.216.34")) is None
        True
    """
    address = reached(address)
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return "bound to an interface"
        kind = next((kind for network, kind in _SPECIAL_6.items() if address in network), None)
        return kind or (None if address in _GLOBAL_6 else "reserved")
    return next((kind for network, kind in _SPECIAL_4.items() if address in network), None)
