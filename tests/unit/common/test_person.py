"""The person who runs a process has a name, also where the system knows none."""

from __future__ import annotations

import getpass
import os
import socket

import pytest

from stepstream.common.person import who


def test_it_is_the_user_at_this_machine() -> None:
    assert who() == f"{getpass.getuser()}@{socket.gethostname()}"


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("No username set")])
def test_a_user_without_a_name_is_a_number(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", fails)

    assert who() == f"uid-{os.getuid()}@{socket.gethostname()}"
