"""No test of the command depends on the devices of the person who runs it."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The configuration file, which need not exist: `write_text` makes it."""
    folder = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    monkeypatch.delenv("KATCP_DEVICE", raising=False)
    (folder / "katcp").mkdir()
    return folder / "katcp" / "config.ini"
