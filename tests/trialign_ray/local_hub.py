"""A Hub on the loopback interface: as much of its protocol as a snapshot download asks for."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LocalHub:
    """Serves one folder as the model `name`, at revisions `main` and COMMIT; `gated/model` is
    gated, `broken/model` makes the server fail, all others do not exist. Notes what was fetched."""

    def __init__(self, name: str, folder: Path):
        self.fetched: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format, *args):
                pass

            def do_HEAD(self):
                self._answer(body=False)

            def do_GET(self):
                self._answer(body=True)

            def _answer(self, body):
                path = self.path.split("?")[0].strip("/")
                if path.startswith("api/models/gated/model"):
                    return self._error(403, "GatedRepo")
                if path.startswith("api/models/broken/model"):
                    return self._error(500, "")
                if path in (f"api/models/{name}/revision/{r}" for r in ("main", COMMIT)):
                    return self._send(json.dumps({"id": name, "sha": COMMIT}).encode(), body)
                if path == f"api/models/{name}/tree/{COMMIT}":
                    return self._send(json.dumps(hub._tree(folder)).encode(), body)
                if path.startswith(f"api/models/{name}/"):
                    return self._error(404, "RevisionNotFound")
                prefix = f"{name}/resolve/{COMMIT}/"
                file = folder / path.removeprefix(prefix)
                if path.startswith(prefix) and file.is_file():
                    if body:
                        hub.fetched.append(path.removeprefix(prefix))
                    return self._send(file.read_bytes(), body)
                return self._error(404, "RepoNotFound")

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

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @staticmethod
    def _tree(folder: Path) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "path": str(f.relative_to(folder)),
                "size": f.stat().st_size,
                "oid": hashlib.sha1(f.read_bytes()).hexdigest(),
            }
            for f in sorted(folder.rglob("*"))
            if f.is_file()
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
