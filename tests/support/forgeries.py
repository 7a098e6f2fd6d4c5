"""Addresses that a stranger could write to reach the inside, each with what would admit it.

The policy is asked about them (test_fetch_addresses), and the client is sent to them (test_fetch_forgeries).
"""

from typing import NamedTuple


class Forbidden(NamedTuple):
    """An address, the range that admits it, and what is allowed before (refused all the same)."""

    host: str
    admitted_by: str
    already: tuple[str, ...] = ()


FORBIDDEN = [
    # plain ranges
    Forbidden("0.0.0.0", "0.0.0.0/8"),
    Forbidden("0.1.2.3", "0.0.0.0/8"),
    Forbidden("10.0.0.1", "10.0.0.0/8"),
    Forbidden("10.255.255.255", "10.0.0.0/8"),
    Forbidden("100.64.0.1", "100.64.0.0/10"),
    Forbidden("100.100.100.200", "100.100.100.200/32"),  # Alibaba's metadata
    Forbidden("100.127.255.254", "100.64.0.0/10"),
    Forbidden("127.0.0.1", "127.0.0.0/8"),
    Forbidden("127.255.255.254", "127.0.0.0/8"),
    Forbidden("168.63.129.16", "168.63.129.16/32"),  # Azure's host agent
    Forbidden("169.254.0.1", "169.254.0.0/16"),
    Forbidden("169.254.169.254", "169.254.169.254/32"),  # metadata of most clouds
    Forbidden("169.254.170.2", "169.254.0.0/16"),  # container credentials
    Forbidden("172.16.0.1", "172.16.0.0/12"),
    Forbidden("172.31.255.255", "172.16.0.0/12"),
    Forbidden("192.0.0.192", "192.0.0.0/24"),  # Oracle's metadata
    Forbidden("192.0.2.1", "192.0.2.0/24"),
    Forbidden("192.31.196.1", "192.31.196.0/24"),
    Forbidden("192.52.193.1", "192.52.193.0/24"),
    Forbidden("192.88.99.1", "192.88.99.0/24"),
    Forbidden("192.168.0.1", "192.168.0.0/16"),
    Forbidden("192.168.255.255", "192.168.0.0/16"),
    Forbidden("192.175.48.1", "192.175.48.0/24"),
    Forbidden("198.18.0.1", "198.18.0.0/15"),
    Forbidden("198.19.255.255", "198.18.0.0/15"),
    Forbidden("198.51.100.7", "198.51.100.0/24"),
    Forbidden("203.0.113.7", "203.0.113.0/24"),
    Forbidden("224.0.0.1", "224.0.0.0/4"),
    Forbidden("239.255.255.250", "224.0.0.0/4"),
    Forbidden("240.0.0.1", "240.0.0.0/4"),
    Forbidden("255.255.255.255", "240.0.0.0/4"),
    # odd spellings of IPv4
    Forbidden("2130706433", "127.0.0.0/8"),
    Forbidden("3232235521", "192.168.0.0/16"),
    Forbidden("2852039166", "169.254.0.0/16"),
    Forbidden("017700000001", "127.0.0.0/8"),
    Forbidden("0177.0.0.1", "127.0.0.0/8"),
    Forbidden("0177.0.0.01", "127.0.0.0/8"),
    Forbidden("00000177.0.0.1", "127.0.0.0/8"),
    Forbidden("0x7f000001", "127.0.0.0/8"),
    Forbidden("0X7F000001", "127.0.0.0/8"),
    Forbidden("0x7f.0.0.1", "127.0.0.0/8"),
    Forbidden("0x7f.0x0.0x0.0x1", "127.0.0.0/8"),
    Forbidden("0xa9fea9fe", "169.254.0.0/16"),
    Forbidden("127.1", "127.0.0.0/8"),
    Forbidden("127.0.1", "127.0.0.0/8"),
    Forbidden("10.1", "10.0.0.0/8"),
    Forbidden("192.168.257", "192.168.0.0/16"),
    Forbidden("0", "0.0.0.0/8"),
    Forbidden("0x", "0.0.0.0/8"),
    Forbidden("127.0.0.1.", "127.0.0.0/8"),
    Forbidden("0x7f.1.", "127.0.0.0/8"),
    Forbidden("１２７.０.０.１", "127.0.0.0/8"),  # full-width digits
    Forbidden("127。0。0。1", "127.0.0.0/8"),  # ideographic full stops
    Forbidden("①②⑦.⓪.⓪.①", "127.0.0.0/8"),  # circled digits
    Forbidden("𝟭𝟮𝟳.0.0.1", "127.0.0.0/8"),  # mathematical digits
    # IPv6
    Forbidden("[::]", "::/128"),
    Forbidden("[::1]", "::1/128"),
    Forbidden("[0:0:0:0:0:0:0:1]", "::1/128"),
    Forbidden("[0000:0000::0001]", "::1/128"),
    Forbidden("[100::1]", "100::/64"),
    Forbidden("[4000::1]", "4000::/3"),
    Forbidden("[5f00::1]", "5f00::/16"),
    Forbidden("[2001:2::1]", "2001:2::/48"),
    Forbidden("[2001:20::1]", "2001:20::/28"),
    Forbidden("[2001:db8::1]", "2001:db8::/32"),
    Forbidden("[2620:4f:8000::1]", "2620:4f:8000::/48"),
    Forbidden("[3fff::1]", "3fff::/20"),
    Forbidden("[fc00::1]", "fc00::/7"),
    Forbidden("[fd00:ec2::254]", "fd00:ec2::254/128"),  # Amazon's metadata over IPv6
    Forbidden("[FD12:3456::1]", "fc00::/7"),
    Forbidden("[fe80::1]", "fe80::/10"),
    Forbidden("[fec0::1]", "fec0::/10"),
    Forbidden("[ff02::1]", "ff00::/8"),
    # IPv4 inside IPv6: the carrier and what it carries are judged apart
    Forbidden("[::ffff:8.8.8.8]", "::ffff:0:0/96"),
    Forbidden("[::ffff:127.0.0.1]", "127.0.0.0/8", ("::ffff:0:0/96",)),
    Forbidden("[::ffff:127.0.0.1]", "::ffff:0:0/96", ("127.0.0.0/8",)),
    Forbidden("[::ffff:7f00:1]", "127.0.0.0/8", ("::ffff:0:0/96",)),
    Forbidden("[0:0:0:0:0:ffff:a9fe:a9fe]", "169.254.0.0/16", ("::ffff:0:0/96",)),
    Forbidden("[::ffff:0:10.0.0.1]", "10.0.0.0/8", ("::ffff:0:0:0/96",)),
    Forbidden("[::8.8.8.8]", "::/96"),
    Forbidden("[::127.0.0.1]", "127.0.0.0/8", ("::/96",)),
    Forbidden("[64:ff9b::8.8.8.8]", "64:ff9b::/96"),
    Forbidden("[64:ff9b::127.0.0.1]", "127.0.0.0/8", ("64:ff9b::/96",)),
    Forbidden("[64:ff9b::169.254.169.254]", "169.254.0.0/16", ("64:ff9b::/96",)),
    Forbidden("[64:ff9b:1::10.0.0.1]", "10.0.0.0/8", ("64:ff9b:1::/48",)),
    Forbidden("[2002:0808:0808::1]", "2002::/16"),
    Forbidden("[2002:7f00:1::1]", "127.0.0.0/8", ("2002::/16",)),
    Forbidden("[2002:c0a8:101::]", "192.168.0.0/16", ("2002::/16",)),
    Forbidden("[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "192.0.2.45/32", ("2001::/32",)),  # Teredo
    Forbidden("[2606:4700::5efe:8.8.8.8]", "2606:4700::/64"),  # ISATAP
    Forbidden("[2606:4700::200:5efe:10.0.0.1]", "10.0.0.0/8", ("2606:4700::/32",)),
]

# What differs from a good address in one place only: (refused, the same put right).
MALFORMED = [
    ("ftp://photos.example/a.jpg", "http://photos.example/a.jpg"),
    ("file:///etc/passwd", "http://etc/passwd"),
    ("gopher://photos.example/_x", "http://photos.example/_x"),
    ("data:image/png;base64,AAAA", "http://image/png"),
    ("javascript:alert(1)", "http://alert/1"),
    ("//photos.example/a.jpg", "http://photos.example/a.jpg"),
    ("photos.example/a.jpg", "http://photos.example/a.jpg"),
    ("http:/photos.example/a.jpg", "http://photos.example/a.jpg"),
    ("http:photos.example", "http://photos.example"),
    ("http:///a.jpg", "http://a/a.jpg"),
    ("http://", "http://a"),
    ("http://user@photos.example/", "http://photos.example/"),
    ("http://user:secret@photos.example/", "http://photos.example/"),
    ("http://@photos.example/", "http://photos.example/"),
    ("http://photos.example@127.0.0.1/", "http://photos.example/127.0.0.1/"),
    ("http://photos.example\\@127.0.0.1/", "http://photos.example/@127.0.0.1/"),
    ("http://photos.example:22/", "http://photos.example:80/"),
    ("http://photos.example:6379/", "http://photos.example:443/"),
    ("http://photos.example:0/", "http://photos.example/"),
    ("http://photos.example:65536/", "http://photos.example/"),
    ("http://photos.example:-80/", "http://photos.example:80/"),
    ("http://photos.example:+80/", "http://photos.example:80/"),
    ("http://photos.example:8０/", "http://photos.example:80/"),
    ("http://photos.example:80:80/", "http://photos.example:80/"),
    ("http://photos..example/", "http://photos.example/"),
    ("http://photos.example../", "http://photos.example./"),
    ("http://.photos.example/", "http://photos.example/"),
    ("http://photos%2eexample/", "http://photos.example/"),
    ("http://photos.example%00.jpg/", "http://photos.example/%00.jpg/"),
    ("http://photos .example/", "http://photos.example/"),
    ("http://photos.example\t/", "http://photos.example/"),
    ("http://photos.example/\r\nHost: other", "http://photos.example/Host: other"),
    ("http://photos.example/\x00", "http://photos.example/"),
    ("http://[::1", "http://[2606:4700::1]"),
    ("http://[::1]x/", "http://[2606:4700::1]/x/"),
    ("http://[photos.example]/", "http://photos.example/"),
    ("http://[8.8.8.8]/", "http://8.8.8.8/"),
    ("http://[v1.fe80]/", "http://v1.example/"),
    ("http://[2606:4700::1%25eth0]/", "http://[2606:4700::1]/"),
    ("http://[2606:4700::1%eth0]/", "http://[2606:4700::1]/"),
    ("http://2606:4700::1/", "http://[2606:4700::1]/"),
    ("http://8.8.8.8.8/", "http://8.8.8.8/"),
    ("http://8.8.8.256/", "http://8.8.8.255/"),
    ("http://8.8.8.08/", "http://8.8.8.07/"),
    ("http://photos.0x7f/", "http://photos.x7f/"),
    ("http://4294967296/", "http://134744072/"),
    ("http://" + "a" * 64 + ".example/", "http://" + "a" * 63 + ".example/"),
    ("http://" + "a." * 127 + "example/", "http://" + "a." * 100 + "example/"),
    ("http://photos.example/" + "a" * 2048, "http://photos.example/" + "a" * 2000),
    ("", "http://a"),
]

# What a service of the inside listens on.
PORTS = [21, 22, 23, 25, 53, 81, 2375, 2379, 3306, 5432, 6379, 8001, 8080, 9200, 10250, 11211, 65535]

# Names that mean the inside wherever they are resolved: what an egress proxy must not be asked for.
INSIDE_NAMES = [
    "localhost",
    "LOCALHOST.",
    "ｌocalhost",  # full-width
    "a.localhost",
    "localhost.localdomain",
    "metadata",
    "metadata.google.internal",
    "instance-data",
    "instance-data.ec2.internal",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "host.docker.internal",
    "printer.local",
    "router.lan",
    "nas.home",
    "router.home.arpa",
    "intranet",
    "wiki.corp",
    "x.onion",
    "1.0.0.127.in-addr.arpa",
]
