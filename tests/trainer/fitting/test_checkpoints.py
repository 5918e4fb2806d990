"""Which files in a run's folder are its checkpoints."""

from __future__ import annotations

from trainer.fitting.checkpoints import checkpoints


def test_a_copy_under_another_name_is_none(tmp_path):
    for name in ("00000010.pt", "00000002.pt", "backup-00000001.pt", "._00000010.pt", "00000030.pt.partial"):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoints(tmp_path)] == ["00000002.pt", "00000010.pt"]
