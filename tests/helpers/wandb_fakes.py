"""What the tests of tracking need: a reader of .wandb files, and W&B servers that answer as they are told."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BLOCK, HEADER = 2**15, 7  # the log format of LevelDB; its first block opens with 7 bytes of W&B's own


def records(segment: Path) -> list[Any]:
    """All records (protocol buffers) of the one .wandb file in a segment."""
    from wandb.proto import wandb_internal_pb2

    (file,) = segment.glob("*.wandb")
    return [wandb_internal_pb2.Record.FromString(data) for data in _log_records(file.read_bytes())]


def _log_records(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    at, parts = HEADER, []
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:  # padding
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + HEADER])  # after 4 bytes of checksum
        if kind == 0:
            return
        parts.append(data[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def values_of(items: Any) -> dict[str, Any]:
    """W&B stores {"a": {"b": 1}} as an item with the nested key ["a", "b"]."""
    values: dict[str, Any] = {}
    for item in items:
        inner = values
        *outer, last = item.nested_key or [item.key]
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return values


@dataclass
class Stored:
    """What `wandb sync` would send."""

    segment: Path
    run: Any = None
    exit_code: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)


def read_segment(segment: Path) -> Stored:
    stored = Stored(segment)
    for record in records(segment):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            stored.run = stored.run or record.run
            stored.config |= values_of(record.run.config.update)
        elif kind == "history":
            stored.rows.append(values_of(record.history.item))
        elif kind == "summary":
            stored.summary |= values_of(record.summary.update)
        elif kind == "artifact":
            stored.artifacts.append(record.artifact)
        elif kind == "exit":
            stored.exit_code = record.exit.exit_code
    return stored


@contextlib.contextmanager
def mute_server() -> Iterator[str]:
    """Takes connections and never answers. Yields its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class Server(ThreadingHTTPServer):
    """Answers what wandb 0.31 asks about a run without artifacts, until `mute` is set.

    `last_step`: that of the run it already has, or None. `rows`: those it was sent.
    """

    daemon_threads = True

    def __init__(self, last_step: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.last_step, self.rows = last_step, list[dict[str, Any]]()
        self.mute, self.closing = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        query = body.get("query", "")
        if path.endswith("/file_stream"):
            lines = body.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.rows += [json.loads(line) for line in lines]
            return {}
        if "RunResumeStatus" in query:
            return {"data": {"model": {"id": "p", "name": "p", "entity": _ENTITY, "bucket": self._bucket()}}}
        if "UpsertBucket" in query:
            project = {"id": "p", "name": "p", "entity": _ENTITY}
            bucket = {"id": "b", "name": body["variables"]["name"], "displayName": "n", "config": "{}"}
            bucket |= {"historyLineCount": 0, "project": project, "description": None, "sweepName": None}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": self.last_step is None}}}
        if "CreateRunFiles" in query:
            return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}}
        return {"data": {}}

    def _bucket(self) -> dict[str, Any] | None:
        if self.last_step is None:
            return None
        lines = self.last_step + 1
        summary = json.dumps({"_step": self.last_step, "_runtime": 1})
        counts = {"historyLineCount": lines, "eventsLineCount": 0, "logLineCount": 0}
        tails = {"historyTail": json.dumps([summary]), "eventsTail": "[]", "summaryMetrics": summary}
        bucket = {"id": "b", "name": "n", "config": "{}", "tags": [], "wandbConfig": '{"t": 1}'}
        return {**bucket, **counts, **tails}


_ENTITY = {"id": "e", "name": "someone"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.server.mute.is_set():
            self.close_connection = self.server.closing.wait(60.0)
            return
        answer = json.dumps(self.server.answer(self.path, json.loads(body or b"{}"))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_PATCH = do_POST

    def log_message(self, *_: object) -> None:
        pass
