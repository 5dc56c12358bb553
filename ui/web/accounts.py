"""Accounts for the login: `--auth user:password`, or a file of such lines."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path

from core.errors import UserError

WRITE_IT = "write it as user:password, both not empty"
SECONDS_AFTER_A_FAILURE = 0.5


class Accounts:
    """Users and passwords, stored as keyed digests and compared in constant time."""

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._key = secrets.token_bytes(32)
        self._digests = {user: self._digest(password) for user, password in passwords.items()}
        self._nobody = secrets.token_bytes(32)

    def __len__(self) -> int:
        return len(self._digests)

    def knows(self, user: str, password: str) -> bool:
        """Whether the user exists and the password is right."""
        return hmac.compare_digest(self._digests.get(user, self._nobody), self._digest(password))

    async def check(self, user: str, password: str) -> bool:
        """`knows` as Gradio's auth callback; a failure is delayed to slow down guessing."""
        if self.knows(user, password):
            return True
        await asyncio.sleep(SECONDS_AFTER_A_FAILURE)
        return False

    def _digest(self, password: str) -> bytes:
        return hmac.new(self._key, password.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def read_accounts(text: str | None, file: str | None = None) -> Accounts | None:
    """The accounts of `--auth`, "user:password" or the name of a file, else those of `auth_file`.

    None without both: the page requires no login. Raises UserError, which never shows a password.
    """
    if text is None:
        return None if file is None else _read_file(Path(file), "auth_file")
    if Path(text).is_file():
        return _read_file(Path(text), "--auth")
    pair = _pair(text)
    if pair is None:
        raise UserError(f"--auth: {WRITE_IT}, or name a file with such lines")
    return Accounts(dict([pair]))


def _read_file(path: Path, option: str) -> Accounts:
    """Lines user:password; empty lines and those that start with # are skipped."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{option} {path}: is not UTF-8 text; write lines user:password") from None
    passwords: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pair = _pair(line)
        if pair is None:
            raise UserError(f"{option} {path}, line {number}: {WRITE_IT}")
        if pair[0] in passwords:
            raise UserError(f"{option} {path}, line {number}: the user {pair[0]} occurs twice; remove one")
        passwords[pair[0]] = pair[1]
    if not passwords:
        raise UserError(f"{option} {path}: has no accounts; write lines user:password")
    return Accounts(passwords)


def _pair(text: str) -> tuple[str, str] | None:
    """Name and password. The login form strips names, so they are stripped here too."""
    user, colon, password = text.partition(":")
    user = user.strip()
    return (user, password) if colon and user and password else None
