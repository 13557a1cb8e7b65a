"""A small program in vLLM's place, so that tests of starts and failures take a moment each."""

from __future__ import annotations

from pathlib import Path

import pytest

# Listens as vLLM does, says what its arguments say, and ends or hangs where the model's folder tells it to.
PROGRAM = """
import http.server, json, os, sys, time
argument = lambda name: sys.argv[sys.argv.index(name) + 1]
how = open(os.path.join(sys.argv[sys.argv.index("serve") + 1], "how")).read()
print("the model says", how, flush=True)
print("my key is", os.environ["VLLM_API_KEY"], flush=True)
if how == "fail":
    sys.exit("RuntimeError: no such architecture")
if how == "hang":
    time.sleep(600)

NAMES = ("num_requests_running num_requests_waiting kv_cache_usage_perc prefix_cache_queries_total "
         "prefix_cache_hits_total prompt_tokens_total generation_tokens_total")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/v1") and self.headers["Authorization"] != "Bearer " + os.environ["VLLM_API_KEY"]:
            self.send_error(401)
            return
        metrics = "".join(f"vllm:{name} 3.0\\n" for name in NAMES.split())
        listed = json.dumps({"data": [{"id": argument("--served-model-name"), "parent": None, "root": "r"}]})
        body = (metrics if self.path == "/metrics" else listed).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        print("the engine broke", flush=True)
        os._exit(7)
    def log_message(self, *args):
        pass

class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = False

Server((argument("--host"), int(argument("--port"))), Handler).serve_forever()
"""


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have our own interpreter find the program in vLLM's place.

    Returns:
        A folder in the model's place; its file ``how`` says what the program does: serve, fail or hang.
    """
    package = folder / "packages" / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    (package / "main.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(folder / "packages"))
    monkeypatch.delenv("OPTOGRAPH_VLLM_PYTHON", raising=False)
    model = folder / "model"
    model.mkdir()
    (model / "how").write_text("serve")
    (model / "model.safetensors").write_bytes(b"weights")
    return model
