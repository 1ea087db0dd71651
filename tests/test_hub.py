"""Files of the hub, against a hub on loopback that also misbehaves. Models and data sets alike."""

import contextlib
import errno
import logging
import os
import shutil
import threading
import time
from http.server import ThreadingHTTPServer

import pytest
from hub_server import Hub
from huggingface_hub import close_session, constants, file_download

from coltrain import hub as coltrain_hub
from coltrain.errors import ColtrainError
from coltrain.hub import download, look_up, show_downloads, without_secrets

BIG = os.urandom(30_000)
FILES = {"config.json": b'{"a": 1}', "part/model-1.safetensors": BIG, "part/rows.parquet": BIG[1:]}
TOKEN = "hf_averysecrettoken"


class Running:
    """A hub in a thread, with a cache of its own; its faults may be set while it runs."""

    def __init__(self, root, monkeypatch):
        class Served(Hub):
            faults = {}  # noqa: RUF012
            tokens = {}  # noqa: RUF012
            asked = []  # noqa: RUF012

            def log_message(self, *_):
                self.asked.append(f"{self.command} {self.path}")

            def handle(self):
                # Clients go away in the middle here; that is what is tested.
                with contextlib.suppress(OSError):
                    super().handle()

        Served.root = root / "hub"
        self.served, self.root, self.monkeypatch = Served, root, monkeypatch
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        address = f"http://127.0.0.1:{self.server.server_port}"
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": address,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(root / "cache"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DOWNLOAD_TIMEOUT": 1,
            "DOWNLOAD_CHUNK_SIZE": 1000,  # several to a file, as of large ones
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_TOKEN_PATH", str(root / "no-token"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(root / "no-token"))
        close_session()

    def add(self, kind, name="some/thing", revision="main", files=FILES):
        for file, content in files.items():
            path = self.root / "hub" / f"{kind}s" / name / revision / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def go_offline(self):
        self.monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        close_session()

    def cached(self):
        """Everything in the cache that holds content."""
        return [
            path
            for path in (self.root / "cache").rglob("*")
            if path.is_file()
            and path.parent.name not in ("refs", "trees")
            and path.stat().st_size
            and path.suffix not in (".lock", ".TAG")
        ]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A running hub, which the libraries of this process take for the real one."""
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)  # between two attempts
    running = Running(tmp_path, monkeypatch)
    yield running
    running.stop()


def fetch(kind="dataset", name="some/thing", revision=None):
    repository = look_up(name, revision, kind)
    folder = download(repository, list(repository.files))
    return {file: (folder / file).read_bytes() for file in repository.files}


def refused(code, kind="dataset", **more):
    with pytest.raises(ColtrainError) as caught:
        fetch(kind, **more)
    assert caught.value.code == code, caught.value
    assert TOKEN not in str(caught.value)
    assert type(caught.value).__name__ == {"dataset": "DataError", "model": "ModelError"}[kind]
    return str(caught.value)


KINDS = pytest.mark.parametrize("kind", ["dataset", "model"])


@KINDS
def test_files_come_once_and_are_there_without_a_connection(hub, kind):
    hub.add(kind)
    assert fetch(kind) == FILES
    got = [line for line in hub.served.asked if line.startswith("GET") and "/resolve/" in line]
    assert len(got) == len(FILES)
    assert fetch(kind) == FILES
    again = [line for line in hub.served.asked if line.startswith("GET") and "/resolve/" in line]
    assert again == got
    hub.go_offline()
    assert fetch(kind) == FILES
    assert look_up("some/thing", None, kind).is_offline


@KINDS
@pytest.mark.parametrize("fault", ["half", "half-again", "short", "other"])
def test_what_is_not_whole_is_refused_and_not_kept(hub, kind, fault):
    hub.add(kind)
    end = "model-1.safetensors"
    hub.served.faults[end] = fault
    start = time.monotonic()
    message = refused("broken-download", kind)
    assert time.monotonic() - start < 20
    # A server that closes early and cannot go on in the middle would hold huggingface_hub for ever.
    assert ("closed early 6 times" in message) == (fault == "half-again")
    assert "some/thing" in message
    assert "the same command again" in message
    assert not [path for path in hub.cached() if path.name == end or path.suffix == ".incomplete"]
    assert BIG not in [path.read_bytes() for path in hub.cached()]
    hub.served.faults.clear()
    assert fetch(kind) == FILES


def test_a_connection_that_breaks_once_goes_on_in_the_middle(hub):
    hub.add("dataset")
    hub.served.faults["rows.parquet"] = "half"
    resolve = hub.served.resolve

    def once(self, parts, with_body):
        if self.headers.get("Range"):
            self.fault = None
        resolve(self, parts, with_body)

    hub.monkeypatch.setattr(hub.served, "resolve", once)
    assert fetch() == FILES
    assert sum("GET" in line and "rows.parquet" in line for line in hub.served.asked) == 2


@KINDS
@pytest.mark.parametrize("status", [500, 503])
def test_a_server_error_is_the_hubs_own(hub, kind, status):
    hub.add(kind)
    hub.served.faults["/revision/main"] = status
    hub.served.faults["some/thing"] = status
    message = refused("hub-error", kind)
    assert f"received  HTTP {status}" in message
    assert "again later" in message
    hub.served.faults = {"model-1.safetensors": status}  # the listing works, a file does not
    refused("hub-error", kind)
    hub.served.faults = {}
    assert fetch(kind) == FILES
    # What is in the cache whole stands in for a hub that does not work, and that is said.
    hub.served.faults = {"some/thing": status}
    assert fetch(kind) == FILES


def test_the_cache_standing_in_is_said(hub, caplog):
    hub.add("dataset")
    fetch()
    hub.served.faults["some/thing"] = 503
    with caplog.at_level(logging.WARNING, "coltrain.hub"):
        fetch()
    assert "from the cache" in caplog.text
    assert "503" in caplog.text
    caplog.clear()
    hub.go_offline()  # then it is what was asked for
    fetch()
    assert caplog.text == ""


@KINDS
def test_a_server_that_never_answers_is_given_up(hub, kind):
    hub.add(kind)
    hub.monkeypatch.setattr(coltrain_hub, "_SECONDS", 0.5)
    hub.served.faults["some/thing"] = "silent"
    start = time.monotonic()
    message = refused("hub-offline", kind)
    assert time.monotonic() - start < 4
    assert "Timeout" in message
    assert "hf download some/thing" in message


@KINDS
def test_a_file_that_stops_coming_is_given_up(hub, kind):
    hub.add(kind)
    hub.served.faults["model-1.safetensors"] = "silent"
    hub.served.patience = 3
    hub.monkeypatch.setattr(file_download, "_ETAG_RETRY_TIMEOUT", 0.2)
    hub.monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    start = time.monotonic()
    refused("hub-offline", kind)
    assert time.monotonic() - start < 15
    hub.served.faults.clear()
    assert fetch(kind) == FILES


@KINDS
def test_what_the_hub_lists_and_does_not_have(hub, kind):
    hub.add(kind)
    hub.served.faults["part/rows.parquet"] = 404
    assert "a file that the hub lists is not there" in refused("broken-download", kind)
    hub.served.faults.clear()
    assert fetch(kind) == FILES


@KINDS
def test_names_and_revisions_that_are_not_there(hub, kind):
    hub.add(kind)
    nothing = {"dataset": "unknown-dataset", "model": "model-not-found"}[kind]
    assert "check the spelling" in refused(nothing, kind, name="some/thin")
    assert "HF_TOKEN" in refused(nothing, kind, name="some/thin")
    assert "v9" in refused("unknown-revision", kind, revision="v9")
    assert "possible hub name" in refused(nothing, kind, name="some/-thing")


@KINDS
def test_a_private_repository_asks_for_its_token(hub, kind, monkeypatch):
    hub.add(kind)
    hub.served.tokens["some/thing"] = TOKEN
    code = {"dataset": "unknown-dataset", "model": "model-not-found"}[kind]
    refused(code, kind)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetch(kind) == FILES
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    message = refused(code, kind)
    assert "the access token of this machine does not allow it" in message
    assert "hf_another" not in message


@KINDS
def test_a_gated_repository_asks_for_the_agreement(hub, kind):
    hub.add(kind)
    hub.served.gated = ("some/thing",)
    message = refused({"dataset": "gated-dataset", "model": "gated-model"}[kind], kind)
    assert "accept the terms on the page of some/thing, then `hf auth login`" in message


def test_other_refusals_say_their_status(hub):
    hub.add("model")
    hub.served.faults["some/thing"] = 403
    assert "received  HTTP 403" in refused("hub-refuses", "model")


@KINDS
def test_a_full_disk_is_said_and_leaves_nothing(hub, kind):
    hub.add(kind)
    write = file_download.http_get

    def full(url, temp_file, **settings):
        if "safetensors" in url:
            temp_file.write(BIG[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(url, temp_file, **settings)

    hub.monkeypatch.setattr(file_download, "http_get", full)
    message = refused("cannot-cache", kind)
    assert "No space left on device" in message
    assert "HF_HOME=" in message
    assert not [
        path for path in hub.cached() if path.name.endswith((".safetensors", ".incomplete"))
    ]
    hub.monkeypatch.setattr(file_download, "http_get", write)
    assert fetch(kind) == FILES


def test_too_little_room_is_seen_before_anything_comes(hub):
    hub.add("dataset")
    usage = shutil.disk_usage("/")._replace(free=100)
    hub.monkeypatch.setattr(coltrain_hub.shutil, "disk_usage", lambda _: usage)
    message = refused("cannot-cache")
    assert "0.00 GiB free" in message
    assert not any("/resolve/" in line for line in hub.served.asked)


def test_a_cached_file_of_another_size_is_fetched_again(hub):
    hub.add("model")
    repository = look_up("some/thing", None, "model")
    folder = download(repository, list(repository.files))
    broken = (folder / "part/model-1.safetensors").resolve()
    broken.write_bytes(BIG[:1000])  # as a crash or a full disk can leave it
    hub.go_offline()
    message = refused("hub-offline", "model")
    assert "1 files are not in the cache: part/model-1.safetensors" in message
    hub.monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert fetch("model") == FILES


def test_a_part_in_the_cache_is_not_the_whole(hub):
    hub.add("dataset")
    repository = look_up("some/thing", None, "dataset")
    download(repository, ["config.json"])
    hub.go_offline()
    message = refused("hub-offline")
    assert "2 files are not in the cache" in message


def test_bytes_are_counted_as_they_come(hub):
    hub.add("dataset")
    shown = []

    class Bar:
        def __init__(self, *about):
            shown.append(about)

        def __enter__(self):
            return shown.append

        def __exit__(self, *_):
            shown.append("end")

    show_downloads(Bar)
    try:
        fetch()
        fetch()  # nothing comes, so nothing is shown
    finally:
        show_downloads(None)
    total = sum(map(len, FILES.values()))
    assert shown[0] == ("some/thing", len(FILES), total)
    assert shown[-1] == "end"
    assert sum(shown[1:-1]) == total
    assert shown.count("end") == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Illegal header value b'Bearer {TOKEN}\\n'", "Illegal header value b'Bearer ***\\n'"),
        ("http://me:word@host/x", "http://***@host/x"),
        ("hf_abcdefgh", "hf_***"),
        ("half_a_page hf_hub", "half_a_page hf_hub"),
    ],
)
def test_no_secret_is_shown(text, shown):
    assert without_secrets(text) == shown
