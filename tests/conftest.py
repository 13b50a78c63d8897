"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

SAMPLE_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of real and traced sample clips that lies beside a development checkout."""
    if not SAMPLE_DATA.is_dir():
        pytest.skip(f"needs the sample clips, which are not part of the repository (looked in {SAMPLE_DATA})")
    return SAMPLE_DATA
