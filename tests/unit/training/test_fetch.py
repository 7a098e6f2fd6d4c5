"""Photos from addresses: fetched once, limited, from public hosts only, failures told. On a real HTTP host."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.training.small import jpeg
from training.errors import DataError
from training.readers.fetch import PhotoFiles, fetch_all, is_public
from training.readers.folder import read_folder

PHOTO = jpeg((200, 30, 30), 1)


class Host(BaseHTTPRequestHandler):
    """/photo answers with a photo, /large with a megabyte, /gone 404, /to-… redirects."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/to-"):
            self.send_response(302)
            self.send_header(
                "Location", {"/to-photo": "photo", "/to-file": "file:///etc/passwd"}.get(self.path, self.path)
            )
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = {"/photo": PHOTO, "/large": b"x" * 1_000_000}.get(self.path)
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        return


@pytest.fixture
def host() -> Iterator[str]:
    Host.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_photo_is_fetched_once_through_its_redirect(host: str, tmp_path: Path) -> None:
    files = PhotoFiles(tmp_path)
    for _ in range(2):
        assert not fetch_all([f"{host}/to-photo"] * 3, files, allow_private=True)
    assert files.file(files.name(f"{host}/to-photo")).read_bytes() == PHOTO
    assert Host.asked == ["/to-photo", "/photo"]


def test_each_failure_says_why_and_leaves_no_file(host: str, tmp_path: Path) -> None:
    wanted = {
        f"{host}/gone": "status 404",
        f"{host}/large": "more than 500,000 bytes",
        f"{host}/to-itself": "more than 3 redirects",
        f"{host}/to-file": "not an http or https address",
        "http://127.0.0.1:1/x": "Cannot connect",
    }
    failed = fetch_all(list(wanted), PhotoFiles(tmp_path), allow_private=True, limit_bytes=500_000)
    assert set(failed) == set(wanted)
    for address, reason in wanted.items():
        assert reason in failed[address]
    assert not list(tmp_path.rglob("*"))


def test_no_private_address_is_asked_unless_allowed(host: str, tmp_path: Path) -> None:
    port = host.rpartition(":")[2]
    hosts = ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0")
    addresses = [f"http://{name}:{port}/photo" for name in hosts]
    failed = fetch_all(addresses, PhotoFiles(tmp_path))
    assert set(failed) == set(addresses)
    assert not Host.asked


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("224.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("2001:0:a00:1::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("nonsense", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) == public


def folder_with_addresses(folder: Path, host: str) -> Path:
    folder.mkdir()
    rows = [
        "p1\tred shoe\tgoods\t" + f"{host}/photo",
        "p2\tred mug\tgoods\t" + f"{host}/gone",
        "p3\t\tgoods\t" + f"{host}/gone",
        "p4\tno photo\tgoods\t",
        "p5\todd\tgoods\tftp://example.com/x",
    ]
    (folder / "listings.tsv").write_text("\n".join(["product_id\ttitle\tlevel1\timage_url", *rows]) + "\n")
    return folder


def test_a_folder_with_addresses_gives_their_photos_and_tells_what_it_could_not_have(host: str, tmp_path: Path) -> None:
    folder = folder_with_addresses(tmp_path / "f", host)
    data = read_folder(folder, cache=tmp_path / "cache", allow_private=True, max_bad_share=0.5)
    assert [(row.id, row.photo is not None) for row in data.rows] == [("p1", True), ("p2", False), ("p4", False)]
    photo = data.rows[0].photo
    assert photo is not None
    assert photo() == PHOTO
    assert [(lost.line, lost.reason) for lost in data.lost_photos] == [(3, "status 404")]
    assert [(bad.line, bad.column) for bad in data.skipped] == [(4, "title"), (6, "image_url")]
    assert "status 404" in data.skipped[0].reason


def test_addresses_need_a_cache_and_stay_unasked_without_leave(host: str, tmp_path: Path) -> None:
    folder = folder_with_addresses(tmp_path / "f", host)
    with pytest.raises(DataError, match="name a cache folder"):
        read_folder(folder)
    data = read_folder(folder, cache=tmp_path / "cache", max_bad_share=0.5)
    assert [lost.reason for lost in data.lost_photos] == ["127.0.0.1 is no public address"] * 2
    assert not Host.asked
