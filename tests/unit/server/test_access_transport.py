"""The wire's files: a pair that fits is served, one that does not is refused and leaves the old; loopback is known."""

import json
import os

import pytest

from certificates import authority, issued
from m2ib_server.access.address import is_loopback
from m2ib_server.access.transport import TlsFiles, read_tls
from m2ib_server.access.watched import Watched
from m2ib_server.errors import AccessFileUnusable
from m2ib_server.telemetry import JsonLines

AUTHORITY = authority()
ONE, TWO = issued(AUTHORITY, "one"), issued(AUTHORITY, "two")


@pytest.fixture
def files(tmp_path):
    made = TlsFiles(certificate=tmp_path / "certificate", key=tmp_path / "key", client_ca=tmp_path / "ca")
    ONE.write(made.certificate, made.key)
    made.client_ca.write_bytes(AUTHORITY.pem)
    return made


def test_a_pair_and_its_authority_are_read(files):
    content = read_tls(files)
    assert (content.certificate, content.key, content.client_ca) == (ONE.pem, ONE.key_pem(), AUTHORITY.pem)
    files.certificate.write_bytes(ONE.pem + AUTHORITY.pem)  # with the rest of its chain
    assert read_tls(files).certificate == ONE.pem + AUTHORITY.pem


@pytest.mark.parametrize(
    ("spoilt", "content"),
    [
        ("certificate", TWO.pem),
        ("certificate", b""),
        ("certificate", b"nonsense"),
        ("certificate", ONE.key_pem()),
        ("key", TWO.key_pem()),
        ("key", b"nonsense"),
        ("key", ONE.key_pem(b"passphrase")),
        ("key", ONE.pem),
        ("client_ca", b"nonsense"),
        ("client_ca", None),
        ("key", None),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name_and_never_repeated(files, spoilt, content):
    path = getattr(files, spoilt)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(AccessFileUnusable) as caught:
        read_tls(files)
    assert str(files.key if spoilt == "certificate" and content == TWO.pem else path) in str(caught.value)
    assert "nonsense" not in str(caught.value)
    assert "BEGIN" not in str(caught.value)


def test_a_new_pair_is_read_once_and_half_of_one_leaves_the_old_and_a_line_in_the_log(files, caplog):
    caplog.set_level("INFO")
    watched = Watched("certificate", files.paths, lambda: read_tls(files))
    files.certificate.write_bytes(TWO.pem)
    for _ in range(3):
        assert watched.current().certificate == ONE.pem
    assert watched.version == 0
    files.key.write_bytes(TWO.key_pem())
    for _ in range(3):
        assert watched.current().certificate == TWO.pem
    assert watched.version == 1
    logged = [json.loads(JsonLines().format(record)) for record in caplog.records]
    assert [(line["level"], line["event"]) for line in logged] == [
        ("ERROR", "certificate refused, the old stays"),
        ("INFO", "certificate read again"),
    ]
    assert logged[0]["reason"] == "ACCESS_FILE_UNUSABLE"


def test_a_folder_of_links_that_is_swapped_is_a_change(tmp_path):
    for name, pair in (("old", ONE), ("new", TWO)):
        (tmp_path / name).mkdir()
        pair.write(tmp_path / name / "certificate", tmp_path / name / "key")
    link = tmp_path / "mounted"
    link.symlink_to("old")
    files = TlsFiles(certificate=link / "certificate", key=link / "key", client_ca=None)
    watched = Watched("certificate", files.paths, lambda: read_tls(files))
    (tmp_path / "next").symlink_to("new")
    os.rename(tmp_path / "next", link)
    assert watched.current().certificate == TWO.pem


@pytest.mark.parametrize(
    ("listen", "is_local"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.9.10:0", True),
        ("localhost:1", True),
        ("LOCALHOST:1", True),
        ("[::1]:1", True),
        ("[0:0:0:0:0:0:0:1]:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("unix:/run/m2ib.sock", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.3:1", False),
        ("[::ffff:10.0.0.3]:1", False),
        ("m2ib.example:1", False),
        ("localhost.example:1", False),
        ("127.0.0.1.example:1", False),
        ("128.0.0.1:1", False),
    ],
)
def test_loopback_is_what_no_other_machine_reaches(listen, is_local):
    assert is_loopback(listen) is is_local
