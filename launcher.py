"""Starts LatentCanvas: makes the environment when it is missing, then runs the command line.

Only the standard library is used here until an environment with the project exists. That is the environment
of this interpreter, if the project and all its requirements are installed there from this checkout;
otherwise it is `.venv` next to this file, made and filled on the first start. A stamp, written last, says
what `.venv` was filled from; an environment without a valid stamp is checked, then completed or made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

CHECKOUT = Path(__file__).resolve().parent
VENV = CHECKOUT / ".venv"
STAMP = VENV / "latentcanvas.json"
LOCK = CHECKOUT / ".venv.lock"
OLDEST, NEWEST = (3, 10), (3, 13)
PROJECT = "latentcanvas"

# Run by the environment's own Python: whether an interrupted installation left a broken package. pip
# writes a distribution's RECORD last, so one without it, or with files of it missing, is broken, though pip
# would call it installed; and pip itself is broken when it has files but no RECORD.
PROBE = f"""
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
def whole(dist):
    files = [f for f in dist.files or () if f.suffix != ".pyc" and ".." not in f.parts]
    return bool(dist.files) and all(Path(f.locate()).exists() for f in files)
ours = [d for d in distributions(path=[p for p in sys.path if p.startswith(sys.prefix)])]
pip = find_spec("pip") is None or "pip" in [d.metadata["Name"] for d in ours]
sys.exit(not ({OLDEST} <= sys.version_info[:2] <= {NEWEST} and all(map(whole, ours)) and pip))
"""


class LauncherError(Exception):
    """One sentence: what is wrong and what to do."""


def say(text: str) -> None:
    """One line on standard error: standard output belongs to the command that is to run."""
    print(f"{PROJECT}: {text}", file=sys.stderr, flush=True)


# --- Find a usable environment ---


def source_key() -> str:
    """A hash of what an environment is filled from: when it changes, install again."""
    digest = hashlib.sha256(str(CHECKOUT).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((CHECKOUT / name).read_bytes())
    return digest.hexdigest()


def venv_python() -> Path:
    """The interpreter inside `.venv`, whether or not it exists yet."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def command_beside(python: Path) -> Path:
    """The `latentcanvas` command of the environment that this interpreter belongs to."""
    return python.with_name(f"{PROJECT}.exe" if os.name == "nt" else PROJECT)


def read_stamp() -> dict[str, Any]:
    """The stamp of the last finished installation; empty when there was none."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def stamp_is_good(extras: Sequence[str]) -> bool:
    """True when `.venv` was filled from the current files with these extras and its interpreter exists."""
    stamp, python = read_stamp(), venv_python()
    return (
        stamp.get("key") == source_key()
        and set(extras) <= set(stamp.get("extras", ()))
        and python.exists()
        and command_beside(python).exists()
        and stamp.get("python") == os.path.realpath(python)
    )


def write_stamp(extras: Sequence[str]) -> None:
    """Written last, atomically: it marks the environment as complete."""
    content = {"key": source_key(), "extras": sorted(extras), "python": os.path.realpath(venv_python())}
    part = STAMP.with_suffix(".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    os.replace(part, STAMP)


def running_environment_has_project(extras: Sequence[str]) -> bool:
    """True when this interpreter has the project, installed from this checkout, and all it now requires."""
    if os.path.realpath(sys.prefix) == os.path.realpath(VENV) and stamp_is_good(extras):
        return True
    if sys.version_info < OLDEST:  # may lack the next import
        return False
    from importlib.metadata import distributions

    installed = [d for d in distributions(name=PROJECT) if origin(d.read_text("direct_url.json")) == CHECKOUT]
    return bool(installed) and requirements_met(extras)


def origin(direct_url: str | None) -> Path | None:
    """The folder that pip recorded as the source of an editable installation."""
    record = json.loads(direct_url or "{}")
    if not record.get("dir_info", {}).get("editable"):
        return None
    return Path(url2pathname(urlsplit(record["url"]).path))


def requirements_met(extras: Sequence[str]) -> bool:
    """Compare what pyproject.toml asks for now with what is installed; both parsers come with the project."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        import tomli
        from packaging.requirements import Requirement
    except ImportError:
        return False
    project = tomli.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    try:
        return all(
            requirement.specifier.contains(version(requirement.name), prereleases=True)
            for requirement in map(Requirement, wanted)
            if requirement.marker is None or requirement.marker.evaluate()
        )
    except PackageNotFoundError:
        return False


# --- Make an environment ---


@contextmanager
def only_one_at_a_time() -> Generator[IO[str]]:
    """Hold the lock of this checkout's `.venv`; the system releases it however the process ends."""
    with open(LOCK, "a", encoding="utf-8") as lock:
        if not _lock(lock, wait=False):
            say("another process is filling .venv: waiting for it")
            _lock(lock, wait=True)
        yield lock


if sys.platform == "win32":
    import msvcrt
    import time

    def _lock(file: IO[str], *, wait: bool) -> bool:
        """Lock the first byte; Windows itself gives up after ten seconds, so keep trying."""
        while True:
            try:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError:
                if not wait:
                    return False
                time.sleep(0.5)
            else:
                return True

else:
    import fcntl

    def _lock(file: IO[str], *, wait: bool) -> bool:
        """Take the lock; False when another process has it and `wait` is False. True on file systems
        without locks.
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


def check_python() -> None:
    """Raise a LauncherError unless this interpreter can make the environment."""
    running = sys.version_info[:2]
    if OLDEST <= running <= NEWEST:
        return
    names = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    other = next(filter(shutil.which, names), None)
    start = f"start it with `{other} launcher.py`" if other else "install one of these and start with it"
    raise LauncherError(f"this is Python {running[0]}.{running[1]}, but 3.10 to 3.13 are supported: {start}.")


def ensure_environment(extras: Sequence[str]) -> Path:
    """The interpreter of `.venv`, which is made or updated first if necessary."""
    if stamp_is_good(extras):
        return venv_python()
    with only_one_at_a_time() as lock:
        if not stamp_is_good(extras):  # the process that we waited for may have done it
            _fill(sorted({*extras, *read_stamp().get("extras", ())}), lock)
    return venv_python()


def _fill(extras: Sequence[str], lock: IO[str]) -> None:
    _check_not_in_the_way()
    known = STAMP.exists()
    if known:
        STAMP.unlink()
    if not _is_whole():
        check_python()
        make = _venv_command()
        _remove_remains()
        say(f"making .venv with Python {sys.version_info[0]}.{sys.version_info[1]}")
        _run(make, lock, "the environment could not be made")
    say(
        "updating .venv with pip"
        if known
        else "filling .venv with pip (the first time this downloads PyTorch and takes minutes)"
    )
    _run([*_pip(), *_install_arguments(extras)], lock, "pip could not install the project")
    say("compiling the installed packages")
    _compile()
    write_stamp(extras)
    say("the environment is ready")


def _is_whole() -> bool:
    """True when `.venv` holds a working Python and only complete packages."""
    python = venv_python()
    if not python.exists():
        return False
    probed = subprocess.run([str(python), "-c", PROBE], capture_output=True, check=False)
    return probed.returncode == 0 and (_has_own_pip() or pip_can_work_elsewhere())


def _check_not_in_the_way() -> None:
    """Raise a LauncherError when `.venv` is not an environment, complete or unfinished."""
    if not os.path.lexists(VENV):
        return
    parts = {"bin", "include", "lib", "lib64", "scripts", "share", "etc", "pyvenv.cfg", ".gitignore"}
    ours = VENV.is_dir() and (
        (VENV / "pyvenv.cfg").exists() or {p.name.lower() for p in VENV.iterdir()} <= parts
    )
    if not ours:
        raise LauncherError(f"{VENV} is not a Python environment: move it elsewhere and start again.")


def _remove_remains() -> None:
    if VENV.is_symlink():
        VENV.unlink()
    elif VENV.exists():
        say("removing an unfinished .venv")
        shutil.rmtree(VENV)


def _venv_command() -> list[str]:
    """The command that makes `.venv`: with its own pip, or, without ensurepip, for this interpreter's pip."""
    if not has_module("venv") or not (has_module("ensurepip") or pip_can_work_elsewhere()):
        package = f"python3.{sys.version_info[1]}-venv"
        raise LauncherError(
            f"this Python has no venv module: install it (on Debian and Ubuntu: "
            f"`apt install {package}`) and start again."
        )
    base = getattr(sys, "_base_executable", None) or sys.executable
    return [base, "-m", "venv", *([] if has_module("ensurepip") else ["--without-pip"]), str(VENV)]


def has_module(module: str) -> bool:
    return find_spec(module) is not None


def pip_can_work_elsewhere() -> bool:
    """True when the pip of this interpreter knows the option --python, which came with 22.3."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        major, minor = version("pip").split(".")[:2]
    except PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= (22, 3)


def _has_own_pip() -> bool:
    pattern = (
        "Lib/site-packages/pip/__main__.py" if os.name == "nt" else "lib/*/site-packages/pip/__main__.py"
    )
    return any(VENV.glob(pattern))


def _pip() -> list[str]:
    """The environment's own pip, or this interpreter's with --python."""
    if _has_own_pip():
        return [str(venv_python()), "-m", "pip"]
    return [sys.executable, "-m", "pip", "--python", str(venv_python())]


def _install_arguments(extras: Sequence[str]) -> list[str]:
    project = str(CHECKOUT) + (f"[{','.join(extras)}]" if extras else "")
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    constraints = str(CHECKOUT / "constraints.txt")
    options = ["--no-input", "--disable-pip-version-check", "--no-compile", *quiet]
    return ["install", *options, "--constraint", constraints, "--editable", project]


def _compile() -> None:
    """Compile to bytecode on all cores; pip would use one. Failed files are compiled when first imported."""
    packages = VENV / ("Lib" if os.name == "nt" else "lib")
    command = [str(venv_python()), "-m", "compileall", "-q", "-j", "0", str(packages)]
    subprocess.run(command, capture_output=True, check=False)


def _run(command: Sequence[str], lock: IO[str], failure: str) -> None:
    """Run a command with its output on standard error.

    On POSIX the child also holds the lock: if this process is killed, no other runs at the same time as it.
    """
    inherited = (lock.fileno(),) if os.name == "posix" else ()
    done = subprocess.run(list(command), stdout=sys.stderr, check=False, pass_fds=inherited, cwd=CHECKOUT)
    if done.returncode:
        raise LauncherError(
            f"{failure} (exit code {done.returncode}, reason above): fix the cause and start again; "
            "nothing needs to be cleaned up."
        )


# --- Hand over ---


def hand_over(python: Path, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the `latentcanvas` command of that environment."""
    command = str(command_beside(python))
    if os.name == "nt":  # on Windows exec returns to the shell before the command ends
        sys.exit(subprocess.run([command, *arguments], check=False).returncode)
    os.execv(python, [str(python), command, *arguments])


def main(arguments: Sequence[str] | None = None) -> int:
    """Find or make the environment and hand over; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    extras = ("test",) if arguments[:1] == ["test"] else ()
    try:
        if not running_environment_has_project(extras):
            hand_over(ensure_environment(extras), arguments)
    except LauncherError as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        say(f"error: the environment could not be prepared: {error}.")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next start continues from here")
        return 130
    from ui.cli import main as command_line

    return command_line(arguments)


if __name__ == "__main__":
    sys.exit(main())
