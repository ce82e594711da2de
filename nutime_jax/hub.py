"""Encoders on the Hugging Face Hub, hf://USER/NAME[@REVISION]: the files of a bundle, and README.md, the page of the repository."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from nutime_jax.bundle import CARD, MAX_FILE_BYTES
from nutime_jax.errors import InputError, extra
from nutime_jax.storage import error_summary

PREFIX = "hf://"
LIBRARY = "nutime_jax"


def is_hub(name: str) -> bool:
    """Return whether a name of an encoder is an address of the hub."""
    return name.startswith(PREFIX)


def download(address: str) -> Path:
    """Return the local folder of a repository, in the cache of huggingface_hub; only files of a bundle are downloaded.

    Without a connection, the cached copy of the revision is used.

    Args:
        address: hf://USER/NAME is the newest state of the repository; @REVISION is a branch, a tag or a commit.

    Raises:
        InputError: the address is not accepted, or the repository cannot be read.
    """
    repo, revision = _parse(address)
    with _access(address):
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(MAX_FILE_BYTES), library_name=LIBRARY))


def upload(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a bundle as one commit, to a new repository or as its new state; other files there stay.

    Returns:
        The address of the commit, hf://USER/NAME@COMMIT.

    Raises:
        InputError: the name is not accepted, or the repository cannot be written.
    """
    address = PREFIX + repo
    _parse(address)
    card = (folder / CARD).read_text() if (folder / CARD).exists() else ""
    (folder / "README.md").write_text(card if card.startswith("---\n") else _page(address, card))
    with _access(address):
        from huggingface_hub import HfApi

        api = HfApi(library_name=LIBRARY)
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, delete_patterns=list(MAX_FILE_BYTES), commit_message="Upload an encoder of nutime_jax"
        )
    return f"{address}@{commit.oid}"


def _page(address: str, card: str) -> str:
    """Return the model card with the metadata of the hub, and the lines that load the encoder."""
    return f"""---
library_name: {LIBRARY}
tags: [time-series]
---
{card}
```python
import nutime_jax  # pip install 'nutime_jax[hub]'

encoder = nutime_jax.load_encoder("{address}")
```
"""


def _parse(address: str) -> tuple[str, str | None]:
    """Return repository and revision of an address."""
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+?)(?:@(\S+))?", address)
    if match is None:
        raise InputError(f"{address!r} is not an address of the Hugging Face Hub; write hf://USER/NAME or hf://USER/NAME@REVISION")
    return match[1], match[2]


@contextlib.contextmanager
def _access(address: str) -> Iterator[None]:
    """Turn errors of the hub into one sentence."""
    with extra("hub", "huggingface_hub"):
        from huggingface_hub import errors
    try:
        yield
    except (OSError, ValueError, RuntimeError, errors.HTTPError) as error:
        raise InputError(f"{address} {_explain(error)}") from error


def _explain(error: Exception) -> str:
    from huggingface_hub import errors

    while (response := getattr(error, "response", None)) is None and error.__cause__:
        error = error.__cause__  # libraries report what they could not do, and their cause why
    status = getattr(response, "status_code", None)
    if isinstance(error, errors.HFValidationError):
        return f"is not accepted ({error_summary(error)}); write USER/NAME as on its page"
    if isinstance(error, errors.RevisionNotFoundError):
        return "has no such revision; choose a branch, a tag or a commit of the repository"
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return "gives you no access; ask its owner for permission, and log in with `hf auth login`"
    if status in (401, 404):
        return "is not found, or private; check the name, or log in with `hf auth login`"
    return f"cannot be reached ({error_summary(error)}); check the connection, or pass a folder that `Encoder.save` wrote"
