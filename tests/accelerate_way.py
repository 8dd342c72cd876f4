"""The usual resumable training loop, as Accelerate's documentation builds it: what the kill test must find fault with.

`save_state` with automatic names and a limit, `load_state`, `skip_first_batches`, a shuffling DataLoader.
"""

import os
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from synclones.shards.read import ShardFolder
from synclones.shards.sources.decode import decode_image


class Digits(torch.utils.data.Dataset):
    """All images of a folder in memory."""

    def __init__(self, folder: str):
        samples = list(ShardFolder(folder).sequential())
        pixels = np.stack([decode_image(s.jpg) for s in samples])
        self.pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        self.labels = torch.tensor([s.label for s in samples])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int):
        return self.pixels[place], self.labels[place], place


def accelerate_way(dataset: str, shape: dict, settings: dict, note):
    """A function that trains one rank of a world in a folder, from wherever `load_state` leaves it."""

    def train(folder: Path, rank: int, world: int, fate) -> None:
        from accelerate import Accelerator
        from accelerate.utils import ProjectConfiguration

        project = ProjectConfiguration(project_dir=str(folder), automatic_checkpoint_naming=True, total_limit=1)
        accelerator = Accelerator(cpu=True, project_config=project)
        torch.manual_seed(0)
        sizes = {name: value for name, value in shape.items() if name != "architecture"}
        model = timm.create_model(shape["architecture"], num_classes=10, img_size=settings["image_size_px"], **sizes)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        data = torch.utils.data.DataLoader(Digits(dataset), batch_size=settings["batch_size"] // world, shuffle=True)
        model, optimizer, data = accelerator.prepare(model, optimizer, data)
        saved = sorted((folder / "checkpoints").glob("checkpoint_*"), key=lambda path: int(path.name.split("_")[1]))
        step = 0
        if saved:
            accelerator.load_state(str(saved[-1]))
            step = (int(saved[-1].name.split("_")[1]) + 1) * settings["checkpoint_every"]
            accelerator.project_configuration.iteration = int(saved[-1].name.split("_")[1]) + 1
        skip = step % len(data)
        while step < settings["steps"]:
            for pixels, labels, places in accelerator.skip_first_batches(data, skip) if skip else data:
                if fate and fate.due("step"):
                    fate.die()
                note(folder.with_suffix(f".samples{rank}"), step, places.tolist())
                accelerator.backward(F.cross_entropy(model(pixels), labels))
                optimizer.step()
                optimizer.zero_grad()
                step += 1
                if fate:
                    fate.steps += 1
                if step % settings["checkpoint_every"] == 0:
                    accelerator.save_state()
                if step >= settings["steps"]:
                    break
            skip = 0
        if accelerator.is_main_process:
            os.makedirs(folder / "export", exist_ok=True)
            save_file(accelerator.unwrap_model(model).state_dict(), folder / "export" / "model.safetensors")
        accelerator.wait_for_everyone()

    return train
