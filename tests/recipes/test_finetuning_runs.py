"""Fine-tunings run one after the other, at the smallest sizes: larger clips, SGD, and a classifier as a start."""

import json

from tiny_runs import STMAE, about, log, make_data, run, typed

from vidstill.cli.main import main

_TINY = (
    "--workers 0 --precision fp32 --schedule.epochs 1 --schedule.warmup-epochs 0 --batch 4 --encoder.dim 24 "
    "--encoder.depth 2 --encoder.heads 2 --encoder.tubelet 2 4 4"
)
_LARGER = (  # 6 frames of 22 × 22, of which 20 × 20 are seen; the pre-training has 4 of 16 × 16
    "--clips.sampling.num-frames 6 --clips.size 22 22 --views.sampling.num-frames 6 --views.size 22 22 "
    "--views.short-side 22"
)


def test_st_mae_s_roads_to_ssv2_and_by_kinetics_600_to_larger_clips_of_kinetics_400_are_walked(tmp_path, capsys):
    data = make_data(tmp_path / "clips")
    short = {"schedule__epochs": 1, "schedule__warmup_epochs": 0}
    run(STMAE, data=data / "unlabelled.txt", out=tmp_path / "pretrained", **short)
    pretrained = {"data": data, "init": tmp_path / "pretrained"}
    sgd = "finetune stmae.large_ssv2_finetune --clips.sampling.num-frames 4 --views.sampling.num-frames 4"
    small = "--clips.size 16 16 --views.size 16 16 --views.short-side 16"
    run(f"{sgd} {_TINY} {small} --optim.base-lr 0.01", out=tmp_path / "ssv2", **pretrained)
    assert len(log(tmp_path / "ssv2")) == 2  # steps: 8 clips in fours

    first = (
        f"finetune stmae.large_k600_finetune {_TINY} {small} --clips.sampling.num-frames 4 "
        "--views.sampling.num-frames 4"
    )
    run(first, out=tmp_path / "k600", **pretrained)
    second = f"finetune stmae.large_k400_from_k600_finetune {_TINY} {_LARGER}"
    options = {"data": data, "init": tmp_path / "k600"}
    capsys.readouterr()
    assert main(typed(second, out=tmp_path / "k400", **options)) == 2
    assert "22 rows does not divide into tubelets of 4; take 20 rows" in capsys.readouterr().err
    assert not (tmp_path / "k400").exists()

    run(f"{second} --encoder.drop-remainder", out=tmp_path / "k400", **options)
    metadata = about(tmp_path / "k400")
    assert metadata["encoder"]["learned_grid"] == [2, 4, 4]  # the pre-training's, from which larger ones are made
    assert metadata["encoder"]["drop_remainder"]
    assert metadata["provenance"][0]["kind"] == "classifier"
    assert 0 <= json.loads((tmp_path / "k400" / "test.json").read_text())["top1"] <= 100
