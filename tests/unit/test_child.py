"""What a child does on its side of headrace.process."""

from __future__ import annotations

import gc

import pytest

from headrace import child


def test_what_imports_make_is_never_looked_through() -> None:
    before = gc.get_freeze_count()
    try:
        with pytest.raises(ImportError, match="broken"), child.importing():
            assert not gc.isenabled()
            raise ImportError("broken")
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
