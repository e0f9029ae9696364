"""Rasters at an address, from a real server on this machine that does everything a server can do wrong."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

import networks
from tiler.cli.main import run_command
from tiler.cli.main import tiler as command
from tiler.damage import DamageLog
from tiler.errors import InputError, RemoteError, TilerError
from tiler.geometry import Window
from tiler.open import open_raster
from tiler.readers import gdal, remote

SIDE = 500
WHOLE = Window(0, 0, SIDE, SIDE)


class Server(http.server.ThreadingHTTPServer):
    """Serves one file in ranges, and misbehaves as it is told."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.requests = 0
        self.etag = '"one"'
        self.trouble = lambda handler, number: False
        """Called with the handler and the request's number, from 1; True: it has answered."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/scene.tif"

    def handle_error(self, request, client_address):
        """Broken pipes are what these tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD with ranges."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests += 1
        if server.trouble(self, server.requests):
            return
        if "Range" not in self.headers:
            self.send(200, server.content)
            return
        first, last = self.range()
        self.send(206, server.content[first : last + 1], f"bytes {first}-{last}/{len(server.content)}")

    do_HEAD = do_GET

    def range(self):
        size = len(self.server.content)
        text = self.headers.get("Range", f"bytes=0-{size - 1}").partition("=")[2]
        first, _, last = text.partition("-")
        return int(first), min(int(last or size - 1), size - 1)

    def send(self, code, body, content_range=None, length=None):
        self.send_response(code)
        self.send_header("ETag", self.server.etag)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


def error(code):
    def answer(handler, number):
        handler.send(code, b"sorry")
        return True

    return answer


def cut_short(handler, number):
    """Half of what was promised, then the line goes."""
    first, last = handler.range()
    body = handler.server.content[first : last + 1]
    whole = f"bytes {first}-{last}/{len(handler.server.content)}"
    handler.send(206, body[: len(body) // 2], whole, len(body))
    handler.close_connection = True
    return True


def reset(handler, number):
    handler.connection.close()
    return True


def silent(handler, number):
    time.sleep(4)
    handler.connection.close()
    return True


def after(count, trouble):
    """Well for some requests, then not."""
    return lambda handler, number: number > count and trouble(handler, number)


def between(first, last, trouble):
    return lambda handler, number: first <= number <= last and trouble(handler, number)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """A cloud-optimised GeoTIFF larger than what GDAL fetches at once."""
    folder = tmp_path_factory.mktemp("scene")
    raw_CHW = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE), np.uint8)
    size = {"count": 3, "height": SIDE, "width": SIDE, "dtype": "uint8"}
    here = {"crs": "EPSG:32633", "transform": Affine(1, 0, 9, 0, -1, 9)}
    with rasterio.open(folder / "plain.tif", "w", driver="GTiff", **size, **here) as dataset:
        dataset.write(raw_CHW)
    rasterio.shutil.copy(folder / "plain.tif", folder / "scene.tif", driver="COG", blocksize=128)
    networks.pixelwise(folder / "net.onnx")
    return folder / "scene.tif"


@pytest.fixture
def server(scene, monkeypatch):
    """A server that behaves, until told otherwise, and clients in a hurry."""
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(remote, "TIMEOUT", 1.0)
    monkeypatch.setitem(gdal.REMOTE_SETTINGS, "GDAL_HTTP_LOW_SPEED_TIME", "1")
    with Server(scene.read_bytes()) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def pixels(path, **options):
    return open_raster(path, **options).read(WHOLE).raw_CHW


@pytest.mark.parametrize("slashes", ["//", "/"])
def test_a_remote_raster_is_read_as_a_local_one(server, scene, slashes):
    """Also when pathlib has taken one of the slashes."""
    url = server.url.replace("//", slashes)
    np.testing.assert_array_equal(pixels(url, allow_remote=True), pixels(scene))
    assert open_raster(Path(url), allow_remote=True).info.files == (server.url,)


def test_nothing_is_fetched_unless_it_is_allowed(server):
    with pytest.raises(InputError, match="--allow-remote"):
        open_raster(server.url)
    assert server.requests == 0


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("s3://bucket/a.tif", "begins with http"),
        ("file:///etc/hostname", "begins with http"),
        ("ftp://host/a.tif", "begins with http"),
        ("http://me:secret@127.0.0.1:9/a.tif", "no user name or password"),
        ("/vsicurl/http://127.0.0.1:9/a.tif", "no such file"),
    ],
)
@pytest.mark.parametrize("allow", [False, True])
def test_other_addresses_are_refused(path, words, allow):
    with pytest.raises(InputError, match=words) as caught:
        open_raster(path, allow_remote=allow)
    assert "secret" not in str(caught.value)


TROUBLES = {
    "500": error(500),
    "503": error(503),
    "429": error(429),
    "416": error(416),
    "cut short": cut_short,
    "reset": reset,
    "silent": silent,
}


@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_that_passes_is_passed_over(server, scene, name):
    """Asked again, and nothing of the bad answer is kept."""
    raster = open_raster(server.url, allow_remote=True)
    server.trouble = between(server.requests + 1, server.requests + 1, TROUBLES[name])
    np.testing.assert_array_equal(raster.read(WHOLE).raw_CHW, pixels(scene))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_that_stays_is_an_error(server, name, log):
    """After a bounded number of requests; never nodata, never zeros."""
    raster = open_raster(server.url, allow_remote=True, damage=DamageLog() if log else None)
    server.trouble = after(server.requests, TROUBLES[name])
    before = server.requests
    with pytest.raises(RemoteError, match="run the same command again") as caught:
        raster.read(WHOLE)
    assert server.url in str(caught.value)
    assert server.requests - before <= 40


@pytest.mark.parametrize("name", [*TROUBLES, "404"])
def test_trouble_when_opening(server, name):
    """One clear error of ours."""
    server.trouble = after(0, {**TROUBLES, "404": error(404)}[name])
    with pytest.raises(TilerError, match=r"scene\.tif"):
        open_raster(server.url, allow_remote=True)
    assert server.requests <= 40


def test_a_file_that_changes_meanwhile(server):
    """No result of two versions."""
    raster = open_raster(server.url, allow_remote=True)
    raster.read(Window(0, 0, 10, 10))
    server.etag = '"two"'
    with pytest.raises(RemoteError, match="changed while it was read"):
        raster.read(WHOLE)


def test_a_server_that_knows_no_ranges(server, scene):
    """It is refused: GDAL asks for parts."""

    def everything(handler, number):
        handler.send(200, handler.server.content)
        return True

    server.trouble = everything
    with pytest.raises(TilerError, match=r"scene\.tif"):
        pixels(server.url, allow_remote=True)


def test_a_redirect_is_followed_but_not_to_a_file(server, scene):
    def redirect(target):
        def answer(handler, number):
            if handler.path != "/moved.tif":
                return False
            handler.send_response(302)
            handler.send_header("Location", target)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True

        return answer

    server.trouble = redirect(server.url)
    moved = server.url.replace("scene", "moved")
    np.testing.assert_array_equal(pixels(moved, allow_remote=True), pixels(scene))
    server.trouble = redirect(scene.as_uri())
    with pytest.raises(TilerError):
        open_raster(moved, allow_remote=True)


def test_a_run_over_a_bad_line_is_carried_on(server, scene, tmp_path, capsys, monkeypatch):
    """Exit 1 with the address, without its signature; then the rest; the same bytes as from the file."""
    monkeypatch.setattr("tiler.planning.BLOCK", 128)
    options = ["--tile", "128", "--batch", "1", "--quiet"]
    net = scene.parent / "net.onnx"
    assert run_command(command, ["segment", str(scene), str(net), str(tmp_path / "local.tif"), *options]) == 0
    url = server.url + "?signature=secret"
    arguments = ["segment", url, str(net), str(tmp_path / "out.tif"), *options, "--allow-remote"]
    server.trouble = after(30, error(503))
    assert run_command(command, arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: cannot read {server.url} (")
    assert err.count("\n") == 1
    assert "secret" not in err
    assert any(p.is_file() for p in (tmp_path / "out.tif.run" / "blocks" / "c").rglob("*"))
    server.trouble = lambda handler, number: False
    assert run_command(command, arguments) == 0
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "local.tif").read_bytes()
    report = (tmp_path / "out.report.json").read_text()
    assert 0 < json.loads(report)["blocks_computed"] < json.loads(report)["blocks"]
    assert "secret" not in report
    server.etag = '"two"'
    assert run_command(command, arguments) == 2
    assert "made with another input file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", ["http://[::1/x.tif", "http://127.0.0.1:9/\u00e9 x.tif", "https://", "http://"]
)
def test_odd_addresses_are_one_line(path, capsys, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.01,))
    net = str(scene.parent / "net.onnx")
    assert run_command(command, ["segment", path, net, str(tmp_path / "o.tif"), "--allow-remote"]) in {1, 2}
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_answer_that_is_no_http(scene, monkeypatch):
    """Some other service listens there."""
    monkeypatch.setattr(remote, "PAUSES", (0.01,))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk():
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as line:
                        line.sendall(b"220 mail ready\r\n\r\n")

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        with pytest.raises(TilerError):
            open_raster(f"http://127.0.0.1:{listener.getsockname()[1]}/x.tif", allow_remote=True)
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_signature_is_in_no_message(server, scene, tmp_path, capsys):
    """Nor is advice that cannot be followed."""
    raw_CHW = np.ones((1, SIDE, SIDE), np.uint8)
    with rasterio.open(
        tmp_path / "one.tif",
        "w",
        driver="GTiff",
        count=1,
        height=SIDE,
        width=SIDE,
        dtype="uint8",
        crs="EPSG:32633",
        transform=Affine(1, 0, 9, 0, -1, 9),
    ) as dataset:
        dataset.write(raw_CHW)
    server.content = (tmp_path / "one.tif").read_bytes()
    net = str(scene.parent / "net.onnx")
    arguments = ["segment", f"{server.url}?s=secret", net, str(tmp_path / "o.tif"), "--allow-remote"]
    assert run_command(command, arguments) == 2
    err = capsys.readouterr().err
    assert "takes 3 bands" in err
    assert "secret" not in err
    assert "--bands" not in err
