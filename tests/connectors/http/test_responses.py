"""The files of `web/` over real HTTP: small on the wire, told apart by form, and not sent again."""

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from starlette.datastructures import Headers

from connectors.http import responses
from connectors.http.app import WEB_FOLDER
from tests.harness.http_server import RunningServer, running_server
from tests.harness.support import redis_server

SCRIPTS = ("pixel.js", "widget.js")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with redis_server() as redis, running_server(tmp_path_factory.mktemp("edge"), redis, demo=True) as running:
        yield running


def get(
    server: RunningServer, path: str, accepted: str = "gzip, br", **headers: str
) -> tuple[requests.Response, bytes]:
    """The answer, and its body as it came over the wire."""
    asked = {"Accept-Encoding": accepted, **{name.replace("_", "-"): value for name, value in headers.items()}}
    answer = requests.get(server.url + path, headers=asked, timeout=10, stream=True)
    return answer, answer.raw.read(decode_content=False)


@pytest.mark.redis
def test_pixel_and_widget_are_small_over_http(server: RunningServer) -> None:
    sizes = {}
    for name in SCRIPTS:
        answer, body = get(server, f"/{name}")
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(body).decode() == responses.strip_comments((WEB_FOLDER / name).read_text("utf-8"))
        assert int(answer.headers["content-length"]) == len(body)
        sizes[name] = len(body)
    assert sum(sizes.values()) < 12_000, sizes


@pytest.mark.redis
@pytest.mark.parametrize(
    ("path", "file", "kind", "cached"),
    [
        ("/pixel.js", "pixel.js", "text/javascript; charset=utf-8", "public, max-age=300"),
        ("/live.css", "live.css", "text/css; charset=utf-8", "public, max-age=300"),
        ("/live", "live.html", "text/html; charset=utf-8", "no-cache"),
        ("/shop/", "demo/index.html", "text/html; charset=utf-8", "no-cache"),
        ("/shop/shop.css", "demo/shop.css", "text/css; charset=utf-8", "no-cache"),
    ],
)
def test_each_encoding_has_its_own_etag(server: RunningServer, path: str, file: str, kind: str, cached: str) -> None:
    zipped, packed = get(server, path)
    plain, whole = get(server, path, "identity")
    text = (WEB_FOLDER / file).read_text("utf-8")
    assert (
        whole == gzip.decompress(packed) == (responses.strip_comments(text) if path == "/pixel.js" else text).encode()
    )
    assert "content-encoding" not in plain.headers
    assert plain.headers["etag"] != zipped.headers["etag"]
    for answer, accepted in ((zipped, "gzip"), (plain, "")):
        assert (
            answer.headers.items()
            >= {
                "content-type": kind,
                "cache-control": cached,
                "vary": "accept-encoding",
                "x-content-type-options": "nosniff",
            }.items()
        )
        modified = answer.headers["last-modified"]
        assert modified == zipped.headers["last-modified"]
        again, nothing = get(server, path, accepted, If_None_Match=answer.headers["etag"])
        assert (again.status_code, nothing) == (304, b"")
        for name in ("etag", "cache-control", "vary", "last-modified"):
            assert again.headers[name] == answer.headers[name]
        assert get(server, path, accepted, If_Modified_Since=modified)[0].status_code == 304
    assert get(server, path, "identity", If_None_Match=zipped.headers["etag"])[0].status_code == 200
    assert requests.head(server.url + path, timeout=10).headers["etag"] == zipped.headers["etag"]


SAME_CODE = """const { parse } = require("internal/deps/acorn/acorn/dist/acorn");
const place = new Set(["start", "end"]);
const tree = (text) => JSON.stringify(parse(text, { ecmaVersion: 2022 }), (key, is) => place.has(key) ? undefined : is);
const [one, other] = JSON.parse(require("fs").readFileSync(0));
console.log(tree(one) === tree(other), tree(one) === tree(one + ";f()"));"""


@pytest.mark.parametrize("name", ["pixel.js", "widget.js", "live.js"])
def test_stripped_script_keeps_code_and_line_numbers(name: str) -> None:
    """Node's own parser reads both forms alike."""
    text = (WEB_FOLDER / name).read_text("utf-8")
    spare = responses.strip_comments(text)
    assert len(spare) < len(text)
    assert spare.count("\n") == text.count("\n")
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    said = subprocess.run(
        [node, "--expose-internals", "-e", SAME_CODE],
        input=json.dumps([text, spare]),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    if "Cannot find module" in said.stderr:
        pytest.skip("this Node keeps its parser elsewhere")
    assert said.stdout.split() == ["true", "false"], said.stderr


def test_file_is_compressed_again_only_after_a_change(tmp_path: Path) -> None:
    path = tmp_path / "one.js"
    path.write_text("let a = 1;\n" * 100)
    first = responses.load_asset(path)
    assert responses.load_asset(path) is first
    path.write_text("let b = 2;\n" * 100)
    os.utime(path, ns=(1, 1))
    second = responses.load_asset(path)
    assert gzip.decompress(second.gzipped) == path.read_bytes()
    assert second.etag != first.etag


def test_incompressible_file_is_sent_uncompressed(tmp_path: Path) -> None:
    path = tmp_path / "tiny.svg"
    path.write_text("<svg/>")
    answer = responses.file_response(path, Headers({"accept-encoding": "gzip"}), {})
    assert answer.body == b"<svg/>"
    assert "content-encoding" not in answer.headers
