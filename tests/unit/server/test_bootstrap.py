"""A server is built of packages that work, or not at all."""

import asyncio
import json
import shutil
import struct

import grpc
import pytest

from m2ib_server.bootstrap import build, channel_options
from m2ib_server.errors import PackageCorrupt
from m2ib_server.settings import ServerSettings


def test_whatever_ends_a_warm_up_names_the_packages_folder(tiny_package, tmp_path):
    package = shutil.copytree(tiny_package, tmp_path / "package")
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["vision"]["image_size"] *= 2  # no graph takes such an image, and no check before the warm-up sees it
    (package / "manifest.json").write_text(json.dumps(manifest))
    rooms = build(ServerSettings(models=package, listen="127.0.0.1:0", device="cpu", threads=1))
    try:
        with pytest.raises(PackageCorrupt, match=r"package: seen a warm-up that ended in \w+; allowed"):
            rooms.repository.load_all()
    finally:
        rooms.fleet.close()


async def settings_frame(address):
    """Return what a server says of itself as an HTTP/2 connection opens: values by identifier (RFC 9113, 6.5)."""
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    head = await reader.readexactly(9)
    assert head[3] == 4, "the first frame is SETTINGS"
    body = await reader.readexactly(int.from_bytes(head[:3], "big"))
    writer.close()
    return dict(struct.iter_unpack(">HI", body))


async def test_a_connection_has_so_many_streams_at_a_time_and_no_more():
    max_concurrent_streams = 3  # its identifier
    server = grpc.aio.server(options=channel_options(4096))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        assert (await asyncio.wait_for(settings_frame(address), 60)).get(max_concurrent_streams) == 2048
    finally:
        await server.stop(None)
