"""TensorBoard's event files, whole and damaged, as its own loader reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboardX import SummaryWriter

from headrace.copy.tensorboard import FILES, events

SCALARS = 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(SCALARS):
            writer.add_scalar("loss", step / 3, step)
    (found,) = tmp_path.glob(FILES)
    return found


def steps(file: Path) -> list[int]:
    return [event.step for event in events(file) if event.summary.value]


def test_what_is_not_written_yet_is_not_missed(file: Path) -> None:
    assert steps(file) == [*range(SCALARS)]
    written = file.read_bytes()
    for length in (0, 5, len(written) // 2, len(written) - 3, len(written) - 1):
        file.write_bytes(written[:length])
        assert len(steps(file)) < SCALARS
    file.write_bytes(written + bytes(1000))
    assert steps(file) == [*range(SCALARS)]


@pytest.mark.parametrize("place", [0, 8, 12], ids=["length", "its checksum", "content"])
def test_a_damaged_record_is_said_and_not_taken_for_the_end(file: Path, place: int) -> None:
    written = bytearray(file.read_bytes())
    second = 16 + int.from_bytes(written[:8], "little")
    written[second + place] ^= 0xFF
    file.write_bytes(written)
    with pytest.raises(ValueError, match=f"{file.name}: it is damaged at byte {second}"):
        steps(file)
    file.write_bytes(b"it is no such file")
    with pytest.raises(ValueError, match="it is damaged at byte 0"):
        steps(file)
