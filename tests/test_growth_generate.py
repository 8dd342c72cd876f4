"""A quality gate, a preset and a generator family are one file or record each: added to a copy, they are used."""

import json
import shutil

from growth import copy, example  # noqa: F401

GATE = example("generate/gates/dummy.py")
PRESET = example("generate/presets/dummy.yaml")
LISTED = "from synclones.generate.settings import presets; print([p.name for p in presets()])"
FLAGS = "from synclones.base.config import flags_of; from synclones.generate.settings import GenerateConfig as G; "


def test_a_gate_and_a_preset_that_were_added_are_listed_and_used(copy):  # noqa: F811
    flags = FLAGS + "print('--on-dummy' in flags_of(G))"
    assert copy.python(flags).strip() == "False" and "dummy" not in copy.python(LISTED)
    copy.add("generate/gates/dummy.py", GATE)
    copy.add("generate/presets/dummy.yaml", PRESET)
    assert copy.python(flags).strip() == "True" and "dummy" in copy.python(LISTED)
    table = ("--recipe", "class-name", "--classes", "lab-digits", "--num-images", "10", "--out", "p.parquet")
    assert copy.command("prompts", "build", *table).returncode == 0
    run = ("--preset", "dummy", "--prompts", "p.parquet", "--out", "set", "--on-dummy", "mark")
    done = copy.command("generate", *run)
    assert done.returncode == 0, done.stderr
    plan = (copy.work / "set" / "plan.json").read_text()
    assert '"num_inference_steps": 3' in plan and '"dummy": "mark"' in plan
    assert '"dummy finding"' in (copy.work / "set" / "train-00000.json").read_text()


def test_a_family_that_was_added_as_one_record_draws(copy):  # noqa: F811
    model = copy.work / "panorama"
    shutil.copytree(copy.root / "lab" / "generator", model)
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionPanoramaPipeline"}))
    table = ("--recipe", "class-name", "--classes", "lab-digits", "--num-images", "2", "--out", "p.parquet")
    assert copy.command("prompts", "build", *table).returncode == 0
    run = ("--model", "panorama", "--prompts", "p.parquet", "--out", "set", "--num-inference-steps", "2")
    run += ("--batch-size", "2", "--images-per-shard", "2", "--on-blank", "mark")
    refused = copy.command("generate", *run)
    assert refused.returncode == 2 and "StableDiffusionPanoramaPipeline" in refused.stderr
    families = copy.root / "generate" / "generators" / "families.py"
    record = '    "StableDiffusionPanoramaPipeline": Family(parts=(*_ALWAYS, "unet")),\n'
    families.write_text(families.read_text().replace("FAMILIES = {\n", "FAMILIES = {\n" + record))
    done = copy.command("generate", *run)
    assert done.returncode == 0, done.stderr
    assert "2 images in 1 shard" in done.stdout
