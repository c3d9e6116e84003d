"""`supernest serve` from outside: a process, asked by HTTP clients, also by many at once and by hostile ones."""

import asyncio
import http.client
import io
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from experiments.data.pictures import decode
from experiments.serving.rate import Rate
from experiments.serving.settings import Settings
from supernet.export.subnet import load_subnet
from tests.experiments.prediction.networks import export_images, of_rows

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("uvicorn", reason="needs the extra `serve`")

from experiments.serving.application import Application

JSON = {"Content-Type": "application/json"}
PNG = {"Content-Type": "image/png"}
RATE = 5
ADDRESSES = (f"127.0.1.{number}" for number in range(1, 255))


class Server(NamedTuple):
    process: subprocess.Popen[str]
    port: int
    net: Path
    silent: socket.socket | None = None

    def connect(self, source: str | None = None) -> http.client.HTTPConnection:
        """A client, from an address of its own, whose requests the server counts apart."""
        return http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=60, source_address=(source or next(ADDRESSES), 0)
        )

    def ask(self, method: str, path: str, body: Any = None, headers: Any = None) -> tuple[int, Any]:
        connection = self.connect()
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content) if response.headers[
            "Content-Type"
        ] == "application/json" else content


def start(net: Path) -> Server:
    """A server that is ready."""
    command = [sys.executable, "-m", "experiments", "serve", str(net), "--port", "0", "--max-bytes", "200000"]
    command += ["--max-pixels", "10000", "--rate", str(RATE), "--batch-size", "8", "--top", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"serving on http://127\.0\.0\.1:(\d+)", line)
    assert match, line + process.communicate()[1]
    return Server(process, int(match[1]), net)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = start(export_images(tmp_path_factory.mktemp("serve") / "net"))
    with socket.create_connection(("127.0.0.1", found.port)) as silent:
        yield found._replace(silent=silent)
    found.process.kill()
    found.process.communicate()


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 9, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def huge_png(side: int) -> bytes:
    """A small file whose head says that it has side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_many_clients_get_what_the_network_says(server: Server) -> None:
    pictures = [png(seed) for seed in range(6)]
    images = np.stack([decode("x", picture, (8, 8, 3)) for picture in pictures])
    logits = load_subnet(server.net).predict(images)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    def client(number: int) -> list[tuple[int, int, Any]]:
        connection, found = server.connect(), []
        for i in range(20):
            which = (number + i) % len(pictures)
            if i % 4:
                connection.request("POST", "/predict?top=3", pictures[which], PNG)
            else:
                body = json.dumps({"examples": [images[which].tolist()]})
                connection.request("POST", "/predict?top=3", body, JSON)
            response = connection.getresponse()
            found.append((which, response.status, json.loads(response.read())))
        connection.close()
        return found

    with ThreadPoolExecutor(8) as pool:
        answers = [one for found in pool.map(client, range(8)) for one in found]
    assert len(answers) == 160
    for which, status, answer in answers:
        assert status == 200, answer
        probabilities = [one["probability"] for one in answer["predictions"][0]["top"]]
        assert probabilities == pytest.approx(np.sort(expected[which])[::-1], rel=1e-3)
    metrics = server.ask("GET", "/metrics")[1].decode()
    assert 'supernest_requests_total{path="/predict",status="200"} 160.0' in metrics
    assert "supernest_batch_examples_sum 160.0" in metrics
    batches = re.search(r"supernest_batch_examples_count (\S+)", metrics)
    assert batches
    assert float(batches[1]) < 160  # some requests were computed together


def test_forms_hold_several_pictures(server: Server) -> None:
    parts = b"".join(
        b'--limit\r\nContent-Disposition: form-data; name="p"; filename="p.png"\r\n\r\n' + png(seed) + b"\r\n"
        for seed in range(3)
    )
    form = {"Content-Type": "multipart/form-data; boundary=limit"}
    status, answer = server.ask("POST", "/predict", parts + b"--limit--\r\n", form)
    assert status == 200
    assert [len(one["top"]) for one in answer["predictions"]] == [2, 2, 2]
    assert server.ask("POST", "/predict", parts * 4 + b"--limit--\r\n", form)[0] == 413


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"", PNG, 400, "the body is empty"),
        (b"no picture", PNG, 400, "cannot be decoded"),
        (png(0)[:80], PNG, 400, "cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", PNG, 400, "cannot be decoded"),
        (huge_png(60_000), PNG, 413, "has more than 10,000 pixels"),
        (huge_png(200), PNG, 413, "200 x 200 pixels are more than 10,000"),
        (bytes(300_000), PNG, 413, "larger than 200,000 bytes"),
        (b"x", {"Content-Type": "text/html"}, 415, "Content-Type: 'text/html' is not taken"),
        (b"x", {}, 415, "Content-Type: '' is not taken"),
        (b"x", {**PNG, "Content-Encoding": "gzip"}, 415, "Content-Encoding"),
        (b"{", JSON, 400, "JSON: Expecting property name"),
        (b"[" * 100_000, JSON, 400, "JSON: nested too deeply"),
        (b"\xff\xfe{}", JSON, 400, "JSON: "),
        (b"[1]", JSON, 400, 'JSON: expected {"examples": [...]}'),
        (b'{"examples": [[[1, 2], [3]]]}', JSON, 400, "examples: ragged lists"),
        (b'{"examples": ["a"]}', JSON, 400, "examples: not all are numbers"),
        (json.dumps({"examples": np.full((1, 8, 8, 3), 256).tolist()}).encode(), JSON, 400, "whole numbers in 0..255"),
        (json.dumps({"examples": np.full((9, 8, 8, 3), 1).tolist()}).encode(), JSON, 413, "9 examples are more than 8"),
        (b"--x--", {"Content-Type": "multipart/form-data"}, 400, "form: "),
        (b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 400, "form: holds no file"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_gets_its_status(
    server: Server, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    found, answer = server.ask("POST", "/predict", body, headers)
    assert (found, message in answer["error"]) == (status, True), answer
    assert server.ask("GET", "/health")[0] == 200


def test_other_paths_methods_and_noise(server: Server) -> None:
    assert server.ask("GET", "/../../etc/passwd")[0] == 404
    assert server.ask("GET", "/predict")[0] == 405
    assert server.ask("POST", "/predict?top=0", png(0), PNG)[0] == 400
    for noise in (b"\x16\x03\x01\x02\x00 no HTTP\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100_000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
            raw.sendall(noise)
            raw.shutdown(socket.SHUT_WR)
            assert b" 400 " in raw.recv(100)
    with socket.create_connection(("127.0.0.1", server.port)) as raw:  # a client that goes within its body
        raw.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\nabc")
    status, answer = server.ask("GET", "/health")
    assert (status, answer["task"], answer["labels"]) == (200, "images", ["cat", "dog", "owl"])


def test_a_client_that_asks_too_often_has_to_wait(server: Server) -> None:
    connection, seen, waits = server.connect("127.0.0.2"), [], ""
    while not seen or (seen[-1] != 429 and len(seen) < 300 * RATE):
        connection.request("POST", "/predict", b"", PNG)
        response = connection.getresponse()
        response.read()
        seen.append(response.status)
        waits = response.headers["Retry-After"]
    assert seen[-1] == 429
    assert len(seen) > 10 * RATE  # what is within the rate passed
    assert int(waits) >= 1
    assert server.ask("POST", "/predict", png(0), PNG)[0] == 200  # another client does not


def test_rates_are_of_a_client_and_recover() -> None:
    now = [0.0]
    rate = Rate(0.5, lambda: now[0])
    assert [rate.wait("a") for _ in range(5)] == [0.0] * 5
    assert rate.wait("a") == pytest.approx(2.0)
    assert rate.wait("b") == 0.0
    now[0] = 2.0
    assert rate.wait("a") == 0.0


def test_a_client_that_says_nothing_is_dropped(server: Server) -> None:
    assert server.silent is not None
    server.silent.settimeout(60)
    assert server.silent.recv(1) == b""


def test_a_failure_is_counted_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    application = Application(of_rows(), Settings())
    app = application.asgi()

    def ask(method: str, path: str) -> tuple[int, bytes]:
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b'{"examples": [[1.0, 2.0]]}', "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(app(scope, receive, send))
        return sent[0]["status"], sent[1]["body"]

    assert ask("POST", "/predict")[0] == 200
    application._batches._compute = lambda examples: 1 / 0  # type: ignore[assignment, return-value]
    status, answer = ask("POST", "/predict")
    assert (status, list(json.loads(answer))) == (500, ["error"])
    assert b'supernest_requests_total{path="/predict",status="500"} 1.0' in ask("GET", "/metrics")[1]
    assert "ZeroDivisionError" in capsys.readouterr().err
    application._in_progress = Settings.max_waiting
    assert ask("POST", "/predict")[0] == 503


def test_a_port_that_is_taken_is_one_line(server: Server, supernest: Any) -> None:
    code, _, err = supernest("serve", str(server.net), "--port", str(server.port))
    assert code == 2
    assert f"--port {server.port}: cannot be listened on" in err
    assert len(err.splitlines()) == 1


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_without_a_word(server: Server, number: signal.Signals) -> None:
    stopped = server if number == signal.SIGTERM else start(server.net)
    with socket.create_connection(("127.0.0.1", stopped.port)):  # also while a client stays connected
        stopped.process.send_signal(number)
        out, err = stopped.process.communicate(timeout=60)
    assert (stopped.process.returncode, out, err) == (0, "", "")
