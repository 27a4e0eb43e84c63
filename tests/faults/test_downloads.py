"""What goes wrong between a mirror and the folder of data sets: always the data or an error, never a damaged file."""

import errno
import hashlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from gmvae_lib import downloads
from gmvae_lib.data import load
from tests.unit.idx_files import write

NAMES = [f"{prefix}-{kind}-ubyte.gz" for prefix in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


RESET = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)  # ends a connection without a goodbye


class Mirror(BaseHTTPRequestHandler):
    """Answers /WAY/FILE as the way says: /good/ sends the file, the others each fail in one way."""

    def do_GET(self):
        way, name = self.path.strip("/").split("/")
        self.server.asked.append(way)
        body = (self.server.folder / name).read_bytes()
        if way.isdigit():
            return self.send_error(int(way))
        if way == "wrong":
            body = bytes([body[0], *(byte ^ 255 for byte in body[1:])])
        if way == "page":
            body = b"<html><body>Please log in to this network</body></html>"
        self.send_response(200)
        if way in ("good", "wrong", "page", "truncated", "stalled", "dropped", "held"):
            self.send_header("Content-Length", str(len(body)))
        if way == "pieces":
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if way == "pieces":  # far smaller than what a client reads at a time
            for start in range(0, len(body), 100):
                piece = body[start:start + 100]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif way in ("truncated", "silently-truncated"):
            self.wfile.write(body[:len(body) // 2])
        elif way == "dropped":
            self.wfile.write(body[:10])
            self.wfile.flush()
            self.connection.setsockopt(*RESET)
            self.connection.close()
        elif way in ("stalled", "held"):
            self.wfile.write(body[:len(body) // 2])
            self.wfile.flush()
            self.server.halfway.set()
            self.server.done.wait(60)
        elif way == "endless":
            try:
                while not self.server.done.is_set():
                    self.wfile.write(bytes(2**16))
                    self.server.sent += 2**16
            except ConnectionError:
                pass  # the client has had enough, as it should
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server on loopback with MNIST's files, small; downloads go to it, and to an empty folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.folder, server.asked, server.sent = tmp_path / "served", [], 0
    server.done, server.halfway, server.daemon_threads = Event(), Event(), True
    server.truth = write(server.folder)
    server.cache = tmp_path / "cache"
    server.files = {name: (len(raw), hashlib.sha256(raw).hexdigest())
                    for name in NAMES for raw in [(server.folder / name).read_bytes()]}

    def ways(*names):
        return tuple(f"http://127.0.0.1:{server.server_port}/{name}/" for name in names)

    def use(*names):
        monkeypatch.setitem(downloads.MIRRORS, "mnist", ways(*names))

    server.ways, server.use = ways, use
    monkeypatch.setitem(downloads.FILES, "mnist", server.files)
    monkeypatch.setattr(downloads, "TIMEOUT", 30)
    monkeypatch.setenv("GMVAE_DATA", str(server.cache))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.done.set()
    server.shutdown()
    thread.join()
    server.server_close()


def assert_whole(mirror, *names):
    """The cache holds these files, whole, and nothing else."""
    held = {path.name: path.read_bytes() for path in mirror.cache.rglob("*") if path.is_file()}
    assert held == {name: (mirror.folder / name).read_bytes() for name in names}
    assert not list(mirror.cache.rglob(".fetching-*"))


def assert_is_truth(mirror, split):
    data = load("mnist", split)
    assert data.x.equal(mirror.truth[split][0].float()) and data.y.equal(mirror.truth[split][1].long())


# Mirrors

FAULTS = {
    "403": "403 Client Error", "404": "404 Client Error", "500": "500 Server Error", "503": "503 Server Error",
    "truncated": "IncompleteRead", "silently-truncated": "SHA256 hash .* does not match",
    "wrong": "SHA256 hash .* does not match", "page": "SHA256 hash .* does not match",
    "stalled": "timed out", "dropped": "Connection (broken|aborted|reset)|reset by peer",
    "endless": "sends more than the .* bytes of the file",
}


@pytest.mark.parametrize("way", ["good", "pieces"])
def test_files_are_fetched_once_and_then_read_from_the_folder(mirror, way):
    mirror.use(way)
    assert_is_truth(mirror, "train")
    assert mirror.asked == [way] * 2
    assert_whole(mirror, *NAMES[:2])
    assert_is_truth(mirror, "test")
    assert_whole(mirror, *NAMES)
    assert_is_truth(mirror, "train")
    assert mirror.asked == [way] * 4


@pytest.mark.parametrize("way", FAULTS)
def test_a_mirror_that_fails_is_named_with_its_fault_and_leaves_nothing(mirror, way, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.3 if way == "stalled" else 30)
    mirror.use(way)
    with pytest.raises(FileNotFoundError) as caught:
        load("mnist")
    said = str(caught.value)
    assert re.search(f"{mirror.ways(way)[0]}{NAMES[0]}: .*(?:{FAULTS[way]})", said), said
    assert all(name in said for name in NAMES)
    assert f"into {mirror.cache / 'mnist'}, or set the environment variable GMVAE_DATA" in said
    assert_whole(mirror)


@pytest.mark.parametrize("way", FAULTS)
def test_after_a_mirror_that_fails_comes_the_next(mirror, way, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 1.0)
    mirror.use(way, "good")
    downloads.fetch("mnist", NAMES[0])
    assert mirror.asked == [way, "good"]
    assert_whole(mirror, NAMES[0])


def test_all_mirrors_are_tried_in_order_and_each_is_named(mirror, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 1.0)
    mirror.use(*FAULTS)
    with pytest.raises(FileNotFoundError) as caught:
        load("mnist")
    assert mirror.asked == list(FAULTS)
    assert all(f"\n  {url}{NAMES[0]}: " in str(caught.value) for url in mirror.ways(*FAULTS))
    assert_whole(mirror)
    mirror.use("good")
    assert_is_truth(mirror, "train")


def test_a_body_without_end_is_given_up_at_the_files_size(mirror):
    mirror.use("endless")
    with pytest.raises(FileNotFoundError):
        load("mnist")
    assert mirror.sent < 2**24  # what the sockets' buffers hold


def test_what_came_before_a_failure_is_kept(mirror):
    """The images are there, the labels fail: the next try asks for the labels only."""
    mirror.use("good")
    downloads.fetch("mnist", NAMES[0])
    mirror.use("500")
    with pytest.raises(FileNotFoundError, match=NAMES[1]):
        load("mnist")
    assert_whole(mirror, NAMES[0])
    mirror.use("good")
    assert_is_truth(mirror, "train")
    assert mirror.asked == ["good", "500", "good"]


def test_no_network_at_all(mirror, monkeypatch):
    """A closed port and a name that nobody answers for, as without a network."""
    monkeypatch.setitem(downloads.MIRRORS, "mnist", ("http://127.0.0.1:1/", "http://nowhere.invalid/"))
    try:
        raise RuntimeError("what the caller was about when it asked")
    except RuntimeError:
        with pytest.raises(FileNotFoundError) as caught:
            load("mnist")
    refused, unknown, advice = str(caught.value).splitlines()[1:]
    assert re.fullmatch(rf"  http://127.0.0.1:1/{NAMES[0]}: \[Errno \d+\] Connection refused", refused)
    assert re.fullmatch(rf"  http://nowhere.invalid/{NAMES[0]}: \[Errno -?\d+\] .+", unknown)
    assert advice.startswith(f"Put {NAMES[0]}, ")
    assert_whole(mirror)


def test_without_leave_to_download_nothing_is_asked_or_made(mirror):
    mirror.use("good")
    with pytest.raises(FileNotFoundError, match=f"{NAMES[0]} is not in {mirror.cache / 'mnist'}. Put"):
        load("mnist", download=False)
    assert mirror.asked == [] and not mirror.cache.exists()


def test_files_that_are_there_are_read_without_asking(mirror):
    mirror.use("good")
    shutil.copytree(mirror.folder, mirror.cache)
    assert_is_truth(mirror, "train")
    assert mirror.asked == []


def test_a_damaged_file_is_named_and_fetched_again_once_deleted(mirror):
    mirror.use("good")
    assert_is_truth(mirror, "test")
    path = mirror.cache / "mnist" / NAMES[2]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{path} is damaged, or no idx file: .* Delete it"):
        load("mnist", "test")
    path.unlink()
    assert_is_truth(mirror, "test")


def test_whoever_may_read_the_folder_may_read_the_file(mirror):
    mirror.use("good")
    for mode in (0o755, 0o700):
        shutil.rmtree(mirror.cache, ignore_errors=True)
        (mirror.cache / "mnist").mkdir(parents=True)
        (mirror.cache / "mnist").chmod(mode)
        assert downloads.fetch("mnist", NAMES[1]).stat().st_mode & 0o777 == mode & 0o666


@pytest.mark.parametrize("silent", [True, False])
def test_the_bar_moves_to_the_end_unless_it_is_off(mirror, monkeypatch, capsys, caplog, silent):
    monkeypatch.setenv("GMVAE_PROGRESS", "0" if silent else "1")
    mirror.use("good")
    downloads.fetch("mnist", NAMES[0])
    said = capsys.readouterr()
    assert said.out == "" and not caplog.records and (said.err == "" if silent else f"{NAMES[0]}: 100%" in said.err)


# Processes

FETCH = """
import sys
from gmvae_lib import downloads
downloads.MIRRORS["mnist"], downloads.FILES["mnist"], downloads.TIMEOUT = {mirrors!r}, {files!r}, 30
try:
    images, labels = downloads.read_split("mnist", "train")
except FileNotFoundError as error:
    sys.exit("said: " + str(error))
print(len(images), len(labels))
"""


def start(mirror, *ways, prefix=(), before=""):
    code = before + FETCH.format(mirrors=mirror.ways(*ways), files=mirror.files)
    return subprocess.Popen([*prefix, sys.executable, "-c", code], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})


def start_and_wait_until_it_writes(mirror):
    worker = start(mirror, "held")
    assert mirror.halfway.wait(60)
    until = time.monotonic() + 30
    while not any(path.is_file() and path.stat().st_size for path in mirror.cache.rglob("*")):
        assert time.monotonic() < until
        time.sleep(0.01)
    return worker


def test_two_processes_that_fetch_at_once_both_get_the_data(mirror):
    workers = [start(mirror, "good") for _ in range(2)]
    for worker in workers:
        out, err = worker.communicate(timeout=60)
        assert out == "7 7\n", err
    assert_whole(mirror, *NAMES[:2])


def test_a_process_killed_halfway_leaves_no_file_and_the_next_one_gets_it(mirror):
    worker = start_and_wait_until_it_writes(mirror)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert downloads.find("mnist", NAMES[0]) is None
    mirror.use("good")
    assert_is_truth(mirror, "train")
    held = [path for path in (mirror.cache / "mnist").iterdir() if not path.name.startswith(".fetching-")]
    assert {path.name: path.read_bytes() for path in held} == {
        name: (mirror.folder / name).read_bytes() for name in NAMES[:2]}


def test_an_interrupt_halfway_leaves_nothing(mirror):
    worker = start_and_wait_until_it_writes(mirror)
    worker.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in worker.communicate()[1]
    assert_whole(mirror)


# Disks


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_asked(mirror, tmp_path, monkeypatch):
    mirror.use("good")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GMVAE_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(FileNotFoundError, match=f"{NAMES[0]} cannot be written to .*Not a directory.*Put train-images"):
        load("mnist")
    assert mirror.asked == []


def test_a_disk_that_fills_up_ends_it_at_once(mirror, monkeypatch):
    def full(self, chunk):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    mirror.use("good", "good")
    with monkeypatch.context() as patch:
        patch.setattr(downloads._Metered, "write", full)
        with pytest.raises(FileNotFoundError, match="cannot be written to .*No space left on device.*GMVAE_DATA"):
            load("mnist")
    assert mirror.asked == ["good"]  # another mirror would not help
    assert_whole(mirror)
    assert_is_truth(mirror, "train")


def on_a_disk_of_its_own(mirror, options):
    """What precedes a command so that the folder of data sets is a small disk, mounted where nobody else sees it."""
    mirror.cache.mkdir()
    mount = ("unshare", "-Urm", "sh", "-c", f'mount -t tmpfs -o {options} none "{mirror.cache}" && exec "$@"', "sh")
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("this system lets no process mount a disk of its own")
    return mount


@pytest.mark.parametrize(("options", "words"), [
    ("size=4k", "No space left on device"), ("ro", "Read-only file system")])
def test_a_real_disk_that_is_full_or_read_only(mirror, options, words):
    out, err = start(mirror, "good", prefix=on_a_disk_of_its_own(mirror, options)).communicate(timeout=60)
    assert out == ""
    assert re.search(f"said: {NAMES[0]} cannot be written to {mirror.cache / 'mnist'} .*{words}", err), err
    assert mirror.asked == ([] if options == "ro" else ["good"])


def test_files_are_moved_into_place_and_never_copied(mirror):
    """A copy would be seen half-written. This disk has room for the images (two pages) and the labels, but once."""
    out, err = start(mirror, "good", prefix=on_a_disk_of_its_own(mirror, "size=12k")).communicate(timeout=60)
    assert out == "7 7\n", err
