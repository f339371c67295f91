"""A Hub on the loopback interface: as much of its protocol as a snapshot download asks for."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSED = {"gated/model": (403, "GatedRepo"), "broken/model": (500, "")}


class LocalHub:
    """Serves one folder as the model `name`, at revisions `main` and COMMIT; `gated/model` is
    gated, `broken/model` makes the server fail, all others do not exist. Notes what was fetched."""

    def __init__(self, name: str, folder: Path):
        self._server = _Server(name, folder)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.fetched = self._server.fetched
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    def __init__(self, name: str, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.folder = name, folder
        self.fetched: list[str] = []

    def about_model(self, path: str) -> object | None:
        """What the Hub's API says at this path; None where there is nothing."""
        api = f"api/models/{self.name}"
        if path in (f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            return {"id": self.name, "sha": COMMIT}
        return self._tree() if path == f"{api}/tree/{COMMIT}" else None

    def _tree(self) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "path": str(f.relative_to(self.folder)),
                "size": f.stat().st_size,
                "oid": hashlib.sha1(f.read_bytes()).hexdigest(),
            }
            for f in sorted(self.folder.rglob("*"))
            if f.is_file()
        ]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format, *args):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        path = self.path.split("?")[0].strip("/")
        for name, (status, code) in REFUSED.items():
            if path.startswith(f"api/models/{name}"):
                return self._error(status, code)
        about = self.server.about_model(path)
        if about is not None:
            return self._send(json.dumps(about).encode(), body)
        if path.startswith(f"api/models/{self.server.name}/"):
            return self._error(404, "RevisionNotFound")
        return self._answer_file(path, body)

    def _answer_file(self, path, body):
        prefix = f"{self.server.name}/resolve/{COMMIT}/"
        name = path.removeprefix(prefix)
        file = self.server.folder / name
        if not path.startswith(prefix) or not file.is_file():
            return self._error(404, "RepoNotFound")
        if body:
            self.server.fetched.append(name)
        return self._send(file.read_bytes(), body)

    def _send(self, content, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _error(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
