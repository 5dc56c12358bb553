"""What one browser tab keeps on the server: who it is, and its newest job."""

from __future__ import annotations

import secrets
from typing import Any


class Session:
    """One browser tab: the owner of its runs, the job that it waits for, and the seed of its newest run."""

    def __init__(self) -> None:
        self.owner = secrets.token_urlsafe(18)
        self.job_id: str | None = None
        self.last_seed: int | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """A session of its own for each tab: what Gradio asks of a state's initial value."""
        return Session()
