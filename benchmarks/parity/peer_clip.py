"""The peer of CLIP: open_clip's own trainer, ``open_clip_train.main``, with a model of our size. Knows nothing of ours.

    python peer_clip.py SETTINGS.json OUT

In: shards and hyper-parameters. Out: ``OUT/model.safetensors`` and ``OUT/model.json``.
"""

import json
import os
import sys
from pathlib import Path

import open_clip
import torch
from open_clip_train.main import main as train
from safetensors.torch import save_file

MODEL = "parity"


def model_config(settings: dict) -> dict:
    """Return open_clip's description of the two towers."""
    vision = {
        **{"image_size": 32, "timm_model_name": settings["architecture"], "timm_model_pretrained": False},
        **{"timm_pool": "", "timm_proj": "linear"},
    }
    text = {
        **{"context_length": settings["text_length"], "vocab_size": 49408, "width": settings["text_width"]},
        **{"layers": settings["text_layers"], "heads": settings["text_heads"]},
    }
    return {"embed_dim": settings["joint_dim"], "vision_cfg": vision, "text_cfg": text}


def main(settings: dict, out: Path) -> None:
    """Train and write the weights."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    configs = out / "configs"
    configs.mkdir(parents=True, exist_ok=True)
    (configs / f"{MODEL}.json").write_text(json.dumps(model_config(settings)))
    open_clip.add_model_config(configs)
    epochs, every = settings["epochs"], settings["steps"] // settings["epochs"]
    flags = {
        **{"train-data": settings["brace"], "train-num-samples": settings["images"], "dataset-type": "webdataset"},
        **{"batch-size": settings["batch_size"], "epochs": epochs, "workers": 1, "warmup": settings["warmup_steps"]},
        **{"lr": settings["learning_rate"], "wd": settings["weight_decay"], "eps": settings["epsilon"]},
        **{"beta1": 0.9, "beta2": settings["beta2"], "grad-clip-norm": settings["clip_norm"]},
        # timm's rule of what does not decay, position embeddings too, as ours; the trainer's own rule decays these.
        **{"opt": "timm/adamw", "model": MODEL, "seed": settings["seed"], "precision": "fp32", "device": "cpu"},
        **{"logs": str(out / "logs"), "name": "run", "save-frequency": epochs, "log-every-n-steps": every},
    }
    assert settings["steps"] == epochs * (settings["images"] // settings["batch_size"])
    train([word for name, value in flags.items() for word in (f"--{name}", str(value))])
    stored = torch.load(out / "logs" / "run" / "checkpoints" / f"epoch_{epochs}.pt", weights_only=True)
    (out / "model.json").write_text(json.dumps(model_config(settings)))
    save_file({name: x.contiguous() for name, x in stored["state_dict"].items()}, out / "model.safetensors")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
