"""Who may log in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from core.errors import UserError
from ui.web import accounts
from ui.web.accounts import read_accounts


def test_a_pair_on_the_command_line() -> None:
    known = read_accounts("ann:se:cret")
    assert known is not None
    assert known.knows("ann", "se:cret")
    for user, password in (("ann", "secret"), ("bob", "se:cret"), ("", ""), ("ann", "")):
        assert not known.knows(user, password)


@pytest.mark.parametrize("bad", ["ann", "ann:", ":secret", ""])
def test_what_is_no_pair(bad: str) -> None:
    with pytest.raises(UserError, match="user:password"):
        read_accounts(bad)


def test_nobody_is_asked_where_nothing_is_given() -> None:
    assert read_accounts(None) is None


def test_a_file_of_accounts(tmp_path: Path) -> None:
    file = tmp_path / "people"
    file.write_text("# who may come\n\nann:one\nbob: two:three \n", encoding="utf-8")
    for known in (read_accounts(str(file)), read_accounts(None, str(file))):
        assert known is not None
        assert len(known) == 2
        assert known.knows("ann", "one")
        assert known.knows("bob", " two:three ")
    only = read_accounts("eve:x", str(file))  # the command line wins
    assert only is not None
    assert not only.knows("ann", "one")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ann:one\nbobsecret\n", "line 2: write it as user:password"),
        (b"ann:one\nann:two\n", "line 2: the user ann occurs twice"),
        (b"\n# none\n", "has no accounts"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_what_a_file_of_accounts_may_not_hold(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "people"
    file.write_bytes(content)
    with pytest.raises(UserError, match=words) as refused:
        read_accounts(str(file))
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_accounts(None, str(tmp_path / "none"))


def test_a_failure_takes_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    known = read_accounts("ann:one")
    assert known is not None
    assert asyncio.run(known.check("ann", "one"))
    assert waited == []
    assert not asyncio.run(known.check("ann", "two"))
    assert waited == [accounts.SECONDS_AFTER_A_FAILURE]
