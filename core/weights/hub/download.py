"""Downloads models from a hub with Hugging Face's protocol.

`plan_download` asks the hub for its files and chooses some; `fetch` downloads them. Files arrive in a
dot-folder near the target, each is checked by size and hash, and only a complete download gets the target's
name: a partial one is never taken for a model, and the next run resumes in the middle of a file.

HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the other variables of huggingface_hub work as usual. Its client
makes the requests, but not the downloads: it would start a broken file from the beginning.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.files import check_writable, plain_errors
from core.weights.hub.hub_files import check_file, choose_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SHORT_NAMES = {"sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5"}
SPARE_BYTES = 100 * 2**20  # kept free on the disk
BLOCK = 1 << 20
PAUSE_SECONDS = 1.0  # before reconnecting
PARTIAL_CONTENT = 206  # the answer to a range of bytes


@dataclass(frozen=True)
class RemoteFile:
    """One file to download: `path` in the repository, `target` in the plan's folder, size in bytes, hash.

    `digest` is a SHA-256 of 64 digits, or git's SHA-1 of 40 for small files that the hub keeps in git itself.
    """

    path: str
    target: str
    size: int
    digest: str


@dataclass(frozen=True)
class DownloadPlan:
    """A planned download: source, licence, files and target.

    `revision` is a commit, so that all files match. The files' targets are relative to `folder`; `whole`: it
    is the model itself, not a folder of models that gets more files.
    """

    repository: str
    revision: str
    endpoint: str
    licence: str | None
    gated: bool
    files: tuple[RemoteFile, ...]
    folder: Path
    whole: bool

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def model(self) -> Path:
        """The path of the model: a folder or a file."""
        return self.folder if self.whole else self.folder / self.files[-1].target

    @property
    def page(self) -> str:
        """The web page of the model and its licence."""
        return f"{self.endpoint}/{self.repository}"

    @property
    def workplace(self) -> Path:
        """The dot-folder in which files arrive, on the target's own disk."""
        return self.model.with_name(f".{self.model.name}.download")

    def arriving(self, file: RemoteFile) -> Path:
        """The path of a checked file; until then it ends in `.part`."""
        return self.workplace / f"{file.path.replace('/', '--')}.{file.digest[:16]}"

    def arrived(self) -> int:
        """Bytes that an earlier run has already downloaded."""
        return sum(_size(self.arriving(file)) or _size(_part(self.arriving(file))) for file in self.files)


def plan_download(
    name: str,
    models: Path,
    *,
    revision: str | None = None,
    variant: str | None = None,
    file: str | None = None,
    out: Path | None = None,
) -> DownloadPlan:
    """Ask the hub about a model, `owner/name` or a short name, and choose its files.

    A folder goes to `out`, or into `models` under the name's last part. A single `file` goes into `out`, or
    `models`, itself. Raises UserError: the hub is unreachable or refuses, the
    repository, revision or file does not exist or cannot be loaded, or the target exists.
    """
    from huggingface_hub import HfApi, constants

    repository = SHORT_NAMES.get(name, name)
    if repository.count("/") != 1:
        known = ", ".join(SHORT_NAMES)
        raise UserError(f"{name!r} is not a hub's model name: write owner/name, or a short name: {known}.")
    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    folder = out or (models if file else models / name.rpartition("/")[2])
    _check_free(folder / Path(file).name if file else folder)
    api = HfApi(endpoint=endpoint, library_name="latentcanvas")
    with _hub_errors(repository, endpoint):
        info = api.model_info(
            repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        commit = info.sha or revision or constants.DEFAULT_REVISION
        files = tuple(
            _remote_file(api, repository, commit, siblings[path], target)
            for path, target in _targets(repository, siblings, variant, file).items()
        )
    licence = getattr(info.card_data, "license", None)
    return DownloadPlan(
        repository=repository,
        revision=commit,
        endpoint=endpoint,
        licence=str(licence) if licence else None,
        gated=bool(info.gated),
        files=files,
        folder=folder,
        whole=file is None,
    )


def _targets(
    repository: str, names: Collection[str], variant: str | None, file: str | None
) -> dict[str, str]:
    """The chosen files, and where they go in the plan's folder."""
    try:
        if file:
            check_file(names, file)
            return {file: Path(file).name}
        return {path: path for path in choose_folder(names, variant)}
    except UserError as error:
        raise UserError(f"{repository}: {error}.") from None


def fetch(plan: DownloadPlan, advance: Callable[[int], None]) -> Path:
    """Download the plan's files; returns the model's path. `advance` gets the bytes received (or discarded).

    Resumes where an earlier run stopped. Raises UserError: not enough disk space, the hub is unreachable, a
    file differs from the hub's hash; files checked until then are kept for the next run.
    """
    _check_free(plan.model)
    check_writable(plan.folder.parent if plan.whole else plan.folder)
    _check_space(plan)
    with plain_errors(plan.workplace):
        plan.workplace.mkdir(exist_ok=True)
        advance(plan.arrived())
        for file in plan.files:
            if not plan.arriving(file).exists():
                _bring(plan, file, advance)
        _publish(plan)
    return plan.model


def _check_free(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} already exists: remove it first, or choose another target with --out.")


def _check_space(plan: DownloadPlan) -> None:
    parent = plan.folder.parent if plan.whole else plan.folder
    needed, free = plan.size - plan.arrived() + SPARE_BYTES, shutil.disk_usage(parent).free
    if needed > free:
        raise UserError(
            f"{parent} has {gigabytes(free)} free, but {gigabytes(needed)} are needed: free some space, or "
            "choose another disk with --out."
        )


def gigabytes(count: int) -> str:
    """Bytes for people: "4.27 GB", "12.3 MB"."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _remote_file(api: HfApi, repository: str, commit: str, sibling: Any, target: str) -> RemoteFile:
    size, digest = sibling.size, sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    if size is None or digest is None:  # a mirror that does not list them
        meta = api.get_hf_file_metadata(url=_url(api.endpoint, repository, commit, sibling.rfilename))
        size, digest = meta.size, meta.etag
    if size is None or digest is None or len(digest) not in (40, 64):
        raise UserError(
            f"{api.endpoint} does not give the size and hash of {sibling.rfilename}: use another hub."
        )
    return RemoteFile(sibling.rfilename, target, size, digest)


def _url(endpoint: str, repository: str, commit: str, path: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repository, path, revision=commit, endpoint=endpoint)


def _bring(plan: DownloadPlan, file: RemoteFile, advance: Callable[[int], None]) -> None:
    """Download one file, reconnecting while each attempt brings bytes; check its hash; rename it."""
    part = _part(plan.arriving(file))
    url = _url(plan.endpoint, plan.repository, plan.revision, file.path)
    with _hub_errors(plan.repository, plan.endpoint):
        while True:
            before = _size(part)
            try:
                _receive(url, part, file.size, advance)
                break
            except _network_error():
                if _size(part) <= before:
                    raise
                time.sleep(PAUSE_SECONDS)
    if digest_of(part, file.digest) != file.digest:
        part.unlink()
        advance(-file.size)
        raise UserError(
            f"{file.path} differs from its hash on {plan.endpoint} and was "
            "deleted: run the same command again."
        )
    os.replace(part, plan.arriving(file))


def _receive(url: str, part: Path, size: int, advance: Callable[[int], None]) -> None:
    """Append the missing bytes to `part`, or download all of it where the server does not support ranges."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    start = _size(part)
    if start == size:
        return
    resumed = {"Range": f"bytes={start}-"} if 0 < start < size else {}
    headers = {**build_hf_headers(library_name="latentcanvas"), "Accept-Encoding": "identity", **resumed}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        resumes = response.status_code == PARTIAL_CONTENT
        if start and not resumes:
            advance(-start)
        with part.open("ab" if resumes else "wb") as file:
            for block in response.iter_bytes():  # as they arrive: a partly filled block would be lost
                file.write(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())
    if _size(part) != size:
        raise UserError(f"{url} sent {_size(part)} bytes instead of {size}: run the same command again.")


def digest_of(path: Path, like: str) -> str:
    """The file's SHA-256, or git's SHA-1 of it where `like` has 40 digits."""
    total = hashlib.sha256()
    if len(like) == 40:
        total = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def _publish(plan: DownloadPlan) -> None:
    """Move files to their final names: a folder in one step, or a single file."""
    root = plan.workplace / "model" if plan.whole else plan.folder
    for file in plan.files:
        target = root / file.target
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(plan.arriving(file), target)
    if plan.whole:
        os.replace(root, plan.folder)
    shutil.rmtree(plan.workplace, ignore_errors=True)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _network_error() -> type[Exception]:
    """The HTTP library's connection error; which library depends on the hub's client."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


@contextmanager
def _hub_errors(repository: str, endpoint: str) -> Generator[None]:
    """Turns the hub's errors into UserErrors."""
    from huggingface_hub import errors

    where = f"{endpoint}/{repository}"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE turns the network off: unset it to download a model.") from None
    except errors.GatedRepoError:
        raise UserError(
            f"{repository} is gated: accept its licence at {where}, and set HF_TOKEN to your account's token."
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{where} does not exist or is private: check the name, or set HF_TOKEN to a token with access."
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{repository} has no such revision: give a branch, a tag or a commit of {where}."
        ) from None
    except errors.HFValidationError as error:
        raise UserError(f"{repository!r} is not a repository name ({error}): write owner/name.") from None
    except errors.HfHubHTTPError as error:
        raise UserError(_refusal(endpoint, error.response.status_code)) from None
    except (ValueError, TypeError, KeyError, AttributeError):  # the client does not check the answer
        raise UserError(
            f"{endpoint} does not answer like a hub: check the network and HF_ENDPOINT."
        ) from None
    except _network_error() as error:
        raise UserError(
            f"{endpoint} cannot be reached ({type(error).__name__}: {error}): check the network and run the "
            "same command again; it resumes where this one stopped."
        ) from None


def _refusal(endpoint: str, status: int) -> str:
    if status in (401, 403):
        return f"{endpoint} refuses ({status}): set HF_TOKEN to the token of an account that may read it."
    if status == 404:
        return f"{endpoint} does not have the file (404): check HF_ENDPOINT and the model's name."
    return f"{endpoint} answers with an error ({status}): run the same command again later."
