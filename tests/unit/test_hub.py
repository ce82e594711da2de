"""Encoders on the Hugging Face Hub: the real client, and a server on this machine that answers what it asks."""

import base64
import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from nutime_jax import load_encoder
from nutime_jax.cli.main import main
from nutime_jax.errors import InputError
from nutime_jax.evaluation.encoders import find_encoders
from tests.encoders import smoke_encoder

constants = pytest.importorskip("huggingface_hub.constants", reason="pip install huggingface_hub to test the hub")

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""The client's own use of its HTTP library."""

TOKEN = "writer"


class Repositories(BaseHTTPRequestHandler):
    """Repositories: name -> commits, each a pair of hash and files. Weights are uploaded by themselves (LFS), as on the hub."""

    protocol_version = "HTTP/1.1"
    commits: dict[str, list[tuple[str, dict[str, bytes]]]]
    objects: dict[str, bytes]

    def log_message(self, *_) -> None:
        pass

    def answer(self, status=200, body=b"", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def files(self, repo, revision):
        """Hash and files of a revision, or None after an error was sent."""
        if repo.startswith("gated/"):
            return self.answer(403, X_Error_Code="GatedRepo")
        if repo not in self.commits:
            return self.answer(401)
        found = [commit for commit in self.commits[repo] if commit[0] == revision] or self.commits[repo][-1:] * (revision == "main")
        return found[0] if found else self.answer(404, X_Error_Code="RevisionNotFound")

    def do_GET(self):
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/?]+)(\?.*)?", self.path):
            repo, what, revision = match[1], match[2], match[3]
            if (found := self.files(repo, revision)) is None:
                return
            listed = [{"type": "file", "path": name, "size": len(c), "oid": oid(c)} for name, c in found[1].items()]
            self.answer(body=listed if what == "tree" else {"id": repo, "sha": found[0]})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            if found := self.files(match[1], match[2]):
                content = found[1][match[3]]
                self.answer(body=content, ETag=f'"{oid(content)}"', X_Repo_Commit=found[0])
        else:
            self.answer(404)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self):
        content = self.body()
        self.objects[hashlib.sha256(content).hexdigest()] = content
        self.answer()

    def do_POST(self):
        body, path = self.body(), self.path
        if path != "/api/validate-yaml" and self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid credentials"})
        if path == "/api/validate-yaml":
            self.answer(body={"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            about = json.loads(body)
            repo = f"{about['organization']}/{about['name']}"
            if about["organization"] != "user":
                return self.answer(403, {"error": "You do not have the rights"})
            exists = repo in self.commits
            self.commits.setdefault(repo, [("0" * 40, {".gitattributes": b""})])  # as the hub begins a repository
            self.answer(409 if exists else 200, {"url": f"http://{self.headers['Host']}/{repo}"})
        elif path.endswith("/preupload/main"):
            modes = [{"path": f["path"], "shouldIgnore": False} for f in json.loads(body)["files"]]
            modes = [{**f, "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"} for f in modes]
            self.answer(body={"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            upload = {"upload": {"href": f"http://{self.headers['Host']}/upload"}}
            self.answer(body={"transfer": "basic", "objects": [{**o, "actions": upload} for o in json.loads(body)["objects"]]})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self.commit(match[1], [json.loads(line) for line in body.splitlines()])
        else:
            self.answer(404)

    def commit(self, repo, operations):
        files = dict(self.commits[repo][-1][1])
        for key, value in ((operation["key"], operation["value"]) for operation in operations):
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        name = hashlib.sha1(json.dumps({path: oid(content) for path, content in files.items()}).encode()).hexdigest()
        self.commits[repo].append((name, files))
        where = f"http://{self.headers['Host']}/{repo}/commit/{name}"
        self.answer(body={"commitOid": name, "commitUrl": where, "hookOutput": "", "success": True})


def oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def connect(monkeypatch, port):
    """Set the server that HF_ENDPOINT sets when the client is imported."""
    path = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:{port}{path}")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub that is empty, an empty cache, and a user who is logged in."""
    handler = type("Handler", (Repositories,), {"commits": {}, "objects": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        connect(monkeypatch, server.server_port)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield handler.commits
        server.shutdown()


@pytest.fixture
def encoder():
    return smoke_encoder()


def test_an_encoder_goes_up_and_comes_back(server, encoder, monkeypatch):
    address = encoder.push_to_hub("user/plant", card="# Plant\n\nTrained on pumps.\n")
    commit, files = server["user/plant"][-1]
    assert address == f"hf://user/plant@{commit}"
    assert files.keys() == {".gitattributes", "README.md", "card.md", "config.json", "weights.safetensors"}
    page = files["README.md"].decode()
    assert page.startswith("---\nlibrary_name: nutime_jax\n")
    assert "Trained on pumps." in page
    assert 'load_encoder("hf://user/plant")' in page
    assert load_encoder("hf://user/plant") == load_encoder(address) == encoder

    other = smoke_encoder("seed=2")
    second = other.push_to_hub("user/plant")
    assert "card.md" not in server["user/plant"][-1][1]
    assert load_encoder("hf://user/plant") == load_encoder(second) == other
    assert load_encoder(address) == encoder

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_encoder("hf://user/plant") == other
    with pytest.raises(InputError, match=r"hf://user/new cannot be reached \(.*\); check the connection, or pass a folder that"):
        load_encoder("hf://user/new")


@pytest.mark.slow
def test_commands_read_an_encoder_of_the_hub(server, encoder, tmp_path):
    encoder.push_to_hub("user/plant")
    np.savetxt(tmp_path / "series.csv", np.random.default_rng(0).normal(size=(3, 40)), delimiter=",")
    assert main(["embed", "--encoder=hf://user/plant", f"--data={tmp_path}/series.csv", f"--out={tmp_path}/f.npy"]) == 0
    assert np.load(tmp_path / "f.npy").shape[0] == 3
    assert main(["convert", "hf://user/plant", f"{tmp_path}/official.safetensors"]) == 0
    assert main(["convert", f"{tmp_path}/official.safetensors", f"{tmp_path}/back", "--heads=2"]) == 0
    assert load_encoder(tmp_path / "back").config.model.width == encoder.config.model.width
    assert main(["convert", "gs://bucket/plant", f"{tmp_path}/official.safetensors"]) == 2
    assert main(["export", "--encoder=hf://user/plant", f"--out={tmp_path}/exported"]) == 0
    assert main(["plot", "nme", "--encoder=hf://user/plant", f"--out={tmp_path}/nme.svg"]) == 0
    first, second = find_encoders(["hf://user/plant", "before=untrained:hf://user/plant"])
    assert (first.name, second.name, first.source.split()[0]) == ("plant", "before", "hf://user/plant")


def test_files_that_do_not_belong_to_an_encoder_are_not_downloaded(server, encoder, tmp_path):
    encoder.push_to_hub("user/plant")
    files = server["user/plant"][-1][1]
    files["pytorch_model.bin"] = b"\x80\x04 a pickle"
    load_encoder("hf://user/plant")
    downloaded = {path.name for path in (tmp_path / "cache").rglob("snapshots/*/*")}
    assert downloaded == {"config.json", "weights.safetensors"}


def test_changed_weights_are_rejected(server, encoder):
    encoder.push_to_hub("user/plant")
    files = server["user/plant"][-1][1]
    files["weights.safetensors"] = files["weights.safetensors"][:-1] + b"x"
    with pytest.raises(InputError, match=r"the checksum of weights\.safetensors does not match; use another copy"):
        load_encoder("hf://user/plant")


def test_a_repository_without_an_encoder(server):
    server["user/notes"] = [("0" * 40, {"README.md": b"# Notes"})]
    with pytest.raises(InputError, match=r"is not a bundle of kind 'encoder' \(No such file or directory\)"):
        load_encoder("hf://user/notes")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("hf://user/new", "hf://user/new is not found, or private; check the name, or log in with `hf auth login`"),
        ("hf://user/plant@v9", "hf://user/plant@v9 has no such revision; choose a branch, a tag or a commit of the repository"),
        ("hf://gated/plant", "hf://gated/plant gives you no access; ask its owner for permission, and log in with `hf auth login`"),
        ("hf://plant", "'hf://plant' is not an address of the Hugging Face Hub; write hf://USER/NAME or hf://USER/NAME@REVISION"),
        ("hf://user/-plant", "hf://user/-plant is not accepted"),
    ],
)
def test_a_download_that_fails_is_one_sentence(server, address, sentence, capsys):
    server["user/plant"] = [("0" * 40, {})]
    assert main(["embed", f"--encoder={address}", "--data=GunPoint", "--split=test", "--out=f.npy"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"nutime: {sentence}")
    assert printed.count("\n") == 1


def test_an_upload_that_fails_is_one_sentence(server, encoder, monkeypatch):
    with pytest.raises(InputError, match="hf://other/plant gives you no access; ask its owner for permission"):
        encoder.push_to_hub("other/plant")
    monkeypatch.setenv("HF_TOKEN", "reader")
    with pytest.raises(InputError, match="hf://user/plant is not found, or private; check the name, or log in"):
        encoder.push_to_hub("user/plant")
    with pytest.raises(InputError, match="'hf://plant' is not an address"):
        encoder.push_to_hub("plant")


def test_no_server(server, encoder, monkeypatch):
    connect(monkeypatch, 1)
    for call in (lambda: load_encoder("hf://user/plant"), lambda: encoder.push_to_hub("user/plant")):
        with pytest.raises(InputError, match=r"hf://user/plant cannot be reached \(.*\); check the connection"):
            call()


def test_the_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"huggingface_hub is not installed; pip install 'nutime_jax\[hub\]'"):
        load_encoder("hf://user/plant")
