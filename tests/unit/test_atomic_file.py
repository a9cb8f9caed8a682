"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from shortlist.recsys.atomic_file import remove_drafts, replacing, write_atomically


def test_new_content_takes_the_place(tmp_path: Path) -> None:
    """The directory is made, an old file is replaced, and no draft is left."""
    path = tmp_path / "new" / "file"
    write_atomically(path, "é")
    write_atomically(path, b"second")
    assert [(p.name, p.read_bytes()) for p in path.parent.iterdir()] == [("file", b"second")]


def test_error_keeps_the_old(tmp_path: Path) -> None:
    """A block that raises leaves the old file, and no draft."""
    path = tmp_path / "file"
    write_atomically(path, "old")

    def interrupted() -> None:
        with replacing(path) as draft:
            draft.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_two_writers_have_their_own_drafts(tmp_path: Path) -> None:
    """Whoever ends last wins, with a whole file."""
    path = tmp_path / "file"
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_drafts_of_killed_processes(tmp_path: Path) -> None:
    """They are hidden, and can be removed without touching finished files."""
    write_atomically(tmp_path / "file", "kept")
    (tmp_path / ".file.0.draft").write_text("half")
    remove_drafts(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["/", ".", "{tmp}"])
def test_directory_is_refused(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory is no place for a file; nothing is left in or next to it."""
    monkeypatch.chdir(tmp_path)
    path = Path(place.format(tmp=tmp_path))
    with pytest.raises(IsADirectoryError) as caught:
        write_atomically(path, "text")
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
