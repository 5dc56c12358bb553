"""Models from a hub that speaks Hugging Face's protocol: what to take, and bringing it whole.

`plan_download` asks the hub what there is and chooses; `fetch` brings it. All arrives in a dot-folder near
the target, each file is checked by size and hash, and only the whole gets the target's name: what is half
there is never taken for a model, and the next run goes on in the middle of a file.

The hub is the one that HF_ENDPOINT names; HF_TOKEN, HF_HUB_OFFLINE and the other variables of huggingface_hub
mean what they mean there. Its client makes the requests; its own downloads would begin a broken file anew.
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
from core.weights.hub.hub_files import choose_file, choose_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SHORT_NAMES = {"sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5"}
SPARE_BYTES = 100 * 2**20  # what stays free on the disk
BLOCK = 1 << 20
PAUSE_SECONDS = 1.0  # before a broken connection is made again
PARTIAL_CONTENT = 206  # the answer to a range of bytes


@dataclass(frozen=True)
class RemoteFile:
    """One file to bring: `path` in the repository, `target` relative to the plan's folder, bytes, its hash.

    `digest` is a SHA-256 of 64 digits, or git's SHA-1 of 40 for small files that the hub keeps in git itself.
    """

    path: str
    target: str
    size: int
    digest: str


@dataclass(frozen=True)
class DownloadPlan:
    """What a download will bring: from where, under which licence, which files, to where.

    `revision` is a commit, so that all files are of one state. The files' targets are relative to `folder`;
    `whole` says that it is the model itself, and not a folder of models that gets some files more.
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
        """The folder, or the file, that will be the model."""
        return self.folder if self.whole else self.folder / self.files[-1].target

    @property
    def page(self) -> str:
        """Where a person reads about the model and its licence."""
        return f"{self.endpoint}/{self.repository}"

    @property
    def workplace(self) -> Path:
        """The dot-folder in which files arrive, on the target's own disk."""
        return self.model.with_name(f".{self.model.name}.download")

    def arriving(self, file: RemoteFile) -> Path:
        """Where a file lies when it has been checked; `.part` is added until then."""
        return self.workplace / f"{file.path.replace('/', '--')}.{file.digest[:16]}"

    def arrived(self) -> int:
        """Bytes that an earlier run has brought already."""
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

    A folder goes to `out`, or into `models` under the name's last part. A single `file` and the tokenizer's
    two files go into `out`, or `models`, itself. Raises UserError: the hub is out of reach or refuses, has no
    such repository, revision or file or none that can be loaded here, or something is in the target's place.
    """
    from huggingface_hub import HfApi, constants

    repository = SHORT_NAMES.get(name, name)
    if repository.count("/") != 1:
        known = ", ".join(SHORT_NAMES)
        raise UserError(f"{name!r} is no model of a hub: write owner/name, or a short name: {known}.")
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
            if not (file and (folder / target).exists())  # one vocabulary is enough for all single files
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
            return {path: Path(path).name for path in choose_file(names, file)}
        return {path: path for path in choose_folder(names, variant)}
    except UserError as error:
        raise UserError(f"{repository}: {error}.") from None


def fetch(plan: DownloadPlan, advance: Callable[[int], None]) -> Path:
    """Bring the plan's files and give the model's path. `advance` is told of bytes that came (or were lost).

    Goes on where an earlier run stopped. Raises UserError: not enough disk, the hub out of reach, a file that
    is not what the hub announced; what was checked until then stays for the next run.
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
        raise UserError(f"{path} is there already: remove it first, or choose another place with --out.")


def _check_space(plan: DownloadPlan) -> None:
    parent = plan.folder.parent if plan.whole else plan.folder
    needed, free = plan.size - plan.arrived() + SPARE_BYTES, shutil.disk_usage(parent).free
    if needed > free:
        raise UserError(
            f"{parent} has {gigabytes(free)} free, and {gigabytes(needed)} are needed: free some, or choose "
            "another disk with --out."
        )


def gigabytes(count: int) -> str:
    """Bytes for people: "4.27 GB", "12.3 MB"."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _remote_file(api: HfApi, repository: str, commit: str, sibling: Any, target: str) -> RemoteFile:
    size, digest = sibling.size, sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    if size is None or digest is None:  # a mirror that does not say it in its list
        meta = api.get_hf_file_metadata(url=_url(api.endpoint, repository, commit, sibling.rfilename))
        size, digest = meta.size, meta.etag
    if size is None or digest is None or len(digest) not in (40, 64):
        raise UserError(f"{api.endpoint} does not say size and hash of {sibling.rfilename}: use another hub.")
    return RemoteFile(sibling.rfilename, target, size, digest)


def _url(endpoint: str, repository: str, commit: str, path: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repository, path, revision=commit, endpoint=endpoint)


def _bring(plan: DownloadPlan, file: RemoteFile, advance: Callable[[int], None]) -> None:
    """Receive one file, anew as often as the connection breaks while bytes still come; check it; name it."""
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
            f"{file.path} did not arrive as {plan.endpoint} announced it (its hash differs) and was thrown "
            "away: run the same command again."
        )
    os.replace(part, plan.arriving(file))


def _receive(url: str, part: Path, size: int, advance: Callable[[int], None]) -> None:
    """Add to `part` what it lacks of the file, or all of it where the server does not know ranges."""
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
        goes_on = response.status_code == PARTIAL_CONTENT
        if start and not goes_on:
            advance(-start)
        with part.open("ab" if goes_on else "wb") as file:
            for block in response.iter_bytes():  # as they come: what waited for a full block would be lost
                file.write(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())
    if _size(part) != size:
        raise UserError(f"{url} gave {_size(part)} bytes instead of {size}: run the same command again.")


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
    """Give everything its names: a folder in one step, a single file after what it needs."""
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
    """What the HTTP library raises when a connection fails; which one depends on the hub's client."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


@contextmanager
def _hub_errors(repository: str, endpoint: str) -> Generator[None]:
    """Everything that a hub can answer, as one sentence."""
    from huggingface_hub import errors

    where = f"{endpoint}/{repository}"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE forbids the network: unset it to download a model.") from None
    except errors.GatedRepoError:
        raise UserError(
            f"{repository} is gated: accept its licence at {where}, and set HF_TOKEN to your account's token."
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{where} is not there, or private: check the name, or set HF_TOKEN to a token that may read it."
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{repository} has no such revision: name a branch, a tag or a commit of {where}."
        ) from None
    except errors.HFValidationError as error:
        raise UserError(f"{repository!r} is no name of a repository ({error}): write owner/name.") from None
    except errors.HfHubHTTPError as error:
        raise UserError(_refusal(endpoint, error.response.status_code)) from None
    except (ValueError, TypeError, KeyError, AttributeError):  # the client trusts what it gets
        raise UserError(
            f"{endpoint} does not answer as a hub does: check the network and HF_ENDPOINT."
        ) from None
    except _network_error() as error:
        raise UserError(
            f"{endpoint} cannot be reached ({type(error).__name__}: {error}): check the network and run the "
            "same command again, which goes on where this one stopped."
        ) from None


def _refusal(endpoint: str, status: int) -> str:
    if status in (401, 403):
        return f"{endpoint} refuses ({status}): set HF_TOKEN to the token of an account that may read it."
    if status == 404:
        return f"{endpoint} answers that the file is not there (404): check HF_ENDPOINT and the model's name."
    return f"{endpoint} answers with an error ({status}): run the same command again later."
