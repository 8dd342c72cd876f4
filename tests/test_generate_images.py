"""Generation that starts from real images: the right image for each row, the same bytes, what plain diffusers draws."""

import io
import json
import shutil
import tarfile

import diffusers
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
import torch
from conftest import identity
from PIL import Image
from test_generate_lora import write_lora
from test_generate_tiny_vae import write_tiny_vae
from tiny_image_pipelines import IMAGE_FAMILIES, write_image_pipeline

from synclones.base.errors import InputError, VerificationError
from synclones.generate.batch import draw_batch
from synclones.generate.generators.generator import Generator, load_pipeline
from synclones.generate.generators.model import find_model
from synclones.generate.generators.source_images import SourceImages, square
from synclones.generate.plan import read_plan
from synclones.generate.run import main
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.sampling.seeds import noise_generators
from synclones.prompts.build import make_table
from synclones.prompts.captions.pool import Labels
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.recipe import Inputs
from synclones.prompts.table import PromptTable
from synclones.shards.read import ShardFolder
from synclones.shards.sources.decode import decode_image
from synclones.shards.sources.images import find_images, read_images

QUICK = ("--batch-size", "4", "--images-per-shard", "4", "--num-inference-steps", "4", "--size-px", "32")
DIGITS = load_classes("lab-digits")
CONDITIONED = {"sd": ("--strength", "0.6"), "sdxl": ("--strength", "0.6"), "unclip": ("--noise-level", "9")}
CLASSES = {
    "sd": "StableDiffusionImg2ImgPipeline",
    "sdxl": "StableDiffusionXLImg2ImgPipeline",
    "unclip": "StableUnCLIPImg2ImgPipeline",
    "variation": "StableDiffusionImageVariationPipeline",
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Eight pictures of eight colours in folders of digits, of four sizes and three formats."""
    folder = tmp_path_factory.mktemp("real")
    noise = np.random.default_rng(0)
    for n in range(8):
        height, width = [(40, 40), (57, 35), (30, 61), (24, 24)][n % 4]
        colour = np.array([40 + 200 * (n >> bit & 1) for bit in range(3)])
        pixels = np.clip(colour + noise.integers(-30, 30, (height, width, 3)), 0, 255).astype(np.uint8)
        (folder / str(n)).mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6 if n in (1, 2, 6) else 1  # a telephone held upright
        Image.fromarray(pixels).save(folder / str(n) / f"picture.{('jpg', 'png', 'webp')[n % 3]}", exif=exif)
    return folder


@pytest.fixture(scope="module")
def table(real, tmp_path_factory):
    """A row for each picture."""
    path = tmp_path_factory.mktemp("tables") / "p.parquet"
    classes = load_classes(str(_digits(path.parent, 8)))
    make_table("real-images", Inputs(classes=classes, images=real), None).write(path)
    return path


def _digits(folder, count):
    path = folder / "digits.csv"
    path.write_text("id,name\n" + "".join(f"{n},{c.name}\n" for n, c in enumerate(DIGITS.classes[:count])))
    return path


@pytest.fixture(scope="module", params=IMAGE_FAMILIES)
def model(request, tmp_path_factory):
    return write_image_pipeline(tmp_path_factory.mktemp("models") / request.param, request.param)


def _draw(model, table, real, out, *more):
    flags = ("--model", str(model), "--prompts", str(table), "--images", str(real), "--out", str(out))
    main([*flags, *QUICK, *CONDITIONED.get(model.name, ()), *more])
    return ShardFolder(out)


def test_images_become_the_same_bytes_however_it_is_run(model, table, real, tmp_path):
    drawn = _draw(model, table, real, tmp_path / "a", "--workers", "2")
    _draw(model, table, real, tmp_path / "b", "--workers", "1", "--part", "2/2")
    _draw(model, table, real, tmp_path / "b", "--workers", "1", "--part", "1/2")
    assert drawn.num_samples == 8 and identity(tmp_path / "a") == identity(tmp_path / "b")
    main(["redraw", str(tmp_path / "a"), "--random", "8"])


def test_plain_diffusers_draws_the_same_from_the_same_image(model, table, real, tmp_path):
    drawn = _draw(
        model, table, real, tmp_path / "a", "--dtype", "float32", "--stored-px", "32", "--jpeg-quality", "100"
    )
    pipeline = getattr(diffusers, CLASSES[model.name]).from_pretrained(
        model, **({"requires_safety_checker": False} if model.name in ("sd", "variation") else {})
    )
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    samples, rows = [drawn.get(index) for index in range(4)], PromptTable(table).rows(0, 4)
    arguments = {
        "image": [_fitted(real / row.source_key.partition("/")[2]) for row in rows],
        "prompt": [row.prompt for row in rows],
        "generator": noise_generators([sample.seed for sample in samples]),
        "num_inference_steps": 4,
        "guidance_scale": 2.0,
        "output_type": "np",
    }
    arguments |= {"strength": 0.6} if model.name in ("sd", "sdxl") else {"height": 32, "width": 32}
    arguments |= {"noise_level": 9} if model.name == "unclip" else {}
    if model.name == "variation":
        del arguments["prompt"]
    torch.set_num_threads(1)
    images = pipeline(**arguments).images
    ours = np.stack([decode_image(sample.jpg) for sample in samples]).astype(int)
    plain = np.stack([_through_jpeg((image * 255).round().astype(np.uint8)) for image in images]).astype(int)
    assert np.abs(ours - plain).max() <= 1, "layouts of memory may round differently"
    assert np.abs(ours - np.roll(plain, 1, 0)).mean() > 5, "another image, seed and prompt give another picture"


def _fitted(path):
    image = diffusers.utils.load_image(str(path))
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side)).resize((32, 32), Image.Resampling.BICUBIC)


def _through_jpeg(pixels):
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=100, colorspace="RGB", colorsubsampling="420")
    return decode_image(data)


def test_another_image_of_the_same_prompt_and_seed_gives_another_picture(model, table, real, tmp_path):
    """The naive twin, which draws without looking at the image, would fail here."""
    mirrored = shutil.copytree(real, tmp_path / "real")
    paths = [image for image in mirrored.rglob("*.*") if image.is_file()]
    for path in paths:
        Image.fromarray(255 - decode_image(path.read_bytes())).save(path)
    relabelled = tmp_path / "p.parquet"
    classes = load_classes(str(_digits(tmp_path, 8)))
    make_table("real-images", Inputs(classes=classes, images=mirrored), None).write(relabelled)
    ours, other = _draw(model, table, real, tmp_path / "a"), _draw(model, relabelled, mirrored, tmp_path / "b")
    pairs = [(ours.get(n), other.get(n)) for n in range(8)]
    assert all(a.txt == b.txt and a.seed == b.seed and a.jpg != b.jpg for a, b in pairs)
    plans = read_plan(tmp_path / "a"), read_plan(tmp_path / "b")
    assert plans[0].images_sha256 != plans[1].images_sha256


def test_one_changed_byte_of_a_source_image_is_another_plan(table, real, tmp_path):
    model = write_image_pipeline(tmp_path / "sd", "sd")
    copied = shutil.copytree(real, tmp_path / "real")
    _draw(model, table, copied, tmp_path / "a")
    path = copied / "0" / "picture.jpg"
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    assert find_images(copied)[0] == find_images(real)[0], "names and sizes are the same"
    with pytest.raises(InputError, match="made by another plan: images_sha256"):
        _draw(model, table, copied, tmp_path / "a")


def test_strength_says_how_much_of_the_image_stays(table, real, tmp_path):
    model = write_image_pipeline(tmp_path / "sd", "sd")
    kept, left = (_draw(model, table, real, tmp_path / f"s{s}", "--strength", str(s)) for s in (0.25, 1.0))
    assert all(kept.get(n).jpg != left.get(n).jpg for n in range(8))
    assert read_plan(tmp_path / "s0.25").strength == 0.25
    assert "pillow" in read_plan(tmp_path / "s1.0").versions


def test_shards_of_ours_are_a_source_and_keys_find_their_pictures(dataset, tmp_path):
    sources = SourceImages(dataset)
    pictures = {image.source_key: decode_image(image.data) for image in read_images(dataset)}
    keys = list(pictures)[::-7]
    for key, found in zip(keys, sources.read(keys, 32), strict=True):
        assert np.array_equal(np.asarray(found), pictures[key])
    path = tmp_path / "p.parquet"
    make_table("real-images", Inputs(classes=DIGITS, images=dataset), 8).write(path)
    model = write_image_pipeline(tmp_path / "sd", "sd")
    assert _draw(model, path, dataset, tmp_path / "a").num_samples == 8
    (tmp_path / "cut").mkdir()
    data = (dataset / "train-00000.tar").read_bytes()
    (tmp_path / "cut" / "train-00000.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(VerificationError, match="damaged|ends inside|no end"):
        SourceImages(tmp_path / "cut")


def test_tars_of_another_program_are_a_source_and_damage_is_named(tmp_path):
    def write(name, members):
        with tarfile.open(tmp_path / name / "00000.tar", "w") as tar:
            for member, data in members:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    for name in ("good", "twice", "bare", "broken"):
        (tmp_path / name).mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (5, 9, 9, 3), np.uint8)
    encoded = []
    for picture in pixels:
        Image.fromarray(picture).save(buffer := io.BytesIO(), "PNG")
        encoded.append(buffer.getvalue())
    texts = [[(f"{n:09d}.txt", b"x"), (f"{n:09d}.png", data), (f"{n:09d}.cls", b"3")] for n, data in enumerate(encoded)]
    write("good", [member for sample in texts for member in sample])
    sources = SourceImages(tmp_path / "good")
    keys = [image.source_key for image in read_images(tmp_path / "good")]
    assert [np.asarray(p).tolist() for p in sources.read(keys[::-1], 9)] == pixels[::-1].tolist()
    tar = tmp_path / "good" / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:600])
    with pytest.raises(VerificationError, match="ends inside|damaged at|no image at"):
        sources.read(keys[4:], 9)
    write("twice", texts[0] + texts[0])
    with pytest.raises(InputError, match="00000.tar: member '000000000.txt' appears twice; repack"):
        SourceImages(tmp_path / "twice")
    write("bare", [("1.txt", b"x")])
    with pytest.raises(InputError, match="--images: no images in the tars of"):
        SourceImages(tmp_path / "bare")
    write("broken", [("1.png", encoded[0][:60])])
    broken = SourceImages(tmp_path / "broken")
    with pytest.raises(VerificationError, match="broken: .*/00000/1: .*decodes"):
        broken.read([f"{broken.source}/00000/1"], 9)


def test_a_square_is_the_middle_of_a_picture():
    pixels = np.zeros((10, 21, 3), np.uint8)
    pixels[:, 5:15] = 255
    assert np.asarray(square(pixels, 10)).min() == 255 and square(pixels, 4).size == (4, 4)


def test_a_lora_and_a_tiny_vae_draw_from_images_too(table, real, tmp_path):
    model = write_image_pipeline(tmp_path / "sd", "sd")
    lora, tiny = write_lora(model, tmp_path / "lora"), write_tiny_vae(tmp_path / "taesd")
    equipment = ([], ["--lora", str(lora)], ["--tiny-vae", str(tiny)], ["--lora", str(lora), "--tiny-vae", str(tiny)])
    sets = [_draw(model, table, real, tmp_path / f"{n}", *flags) for n, flags in enumerate(equipment)]
    assert all(len({drawn.get(n).jpg for drawn in sets}) == 4 for n in range(8)), "each of them changes each picture"
    _draw(model, table, real, tmp_path / "again", *equipment[3], "--workers", "1")
    assert identity(tmp_path / "again") == identity(tmp_path / "3")


def test_encoding_an_image_leaves_the_shared_weights_alone(table, real, tmp_path):
    """diffusers takes SDXL's autoencoder to float32 and back while other threads decode with it."""
    drawn = _draw(write_image_pipeline(tmp_path / "sdxl", "sdxl"), table, real, tmp_path / "a", "--dtype", "bfloat16")
    plan = read_plan(tmp_path / "a")
    model = Generator(find_model(str(tmp_path / "sdxl")), CLASSES["sdxl"])
    pipeline = load_pipeline(model, plan.scheduler, plan.dtype, "cpu")
    moved = []
    pipeline.vae.to = lambda *args, **more: moved.append((args, more))
    sampler, rows = Sampler(pipeline, plan, sources=SourceImages(real)), PromptTable(table).rows(0, 4)
    torch.set_num_threads(1)
    assert [sample.jpg for sample in draw_batch(plan, sampler, rows)] == [drawn.get(n).jpg for n in range(4)]
    assert moved == []
    pipeline.vae.register_to_config(force_upcast=True)
    with pytest.raises(RuntimeError):  # the naive way; our `to` does nothing, so the numbers do not fit
        draw_batch(plan, sampler, rows)
    assert moved


@pytest.mark.parametrize(
    "change, told",
    [
        ({"source_key": ""}, "row 5: source_key is empty, but --images needs one"),
        ({"source_key": "0123456789ab/3/picture.jpg"}, "row 5: source_key '0123456789ab/3.*is of another source than"),
        ({"source_key": "SOURCE/3/none.jpg"}, "row 5: source_key 'SOURCE/3/none.jpg' is of no image"),
    ],
)
def test_a_row_without_its_picture_is_refused_before_a_model_loads(table, real, tmp_path, monkeypatch, change, told):
    source = find_images(real)[0]
    rows = pq.read_table(table).replace_schema_metadata({}).to_pylist()
    rows[5] |= {key: value.replace("SOURCE", source) for key, value in change.items()}
    pq.write_table(
        pa.Table.from_pylist(rows, pq.read_schema(table)).replace_schema_metadata({}), tmp_path / "p.parquet"
    )
    monkeypatch.setattr("synclones.generate.workers.load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    model = write_image_pipeline(tmp_path / "sd", "sd")
    with pytest.raises(InputError, match=told.replace("SOURCE", source)):
        _draw(model, tmp_path / "p.parquet", real, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "family, flags, told",
    [
        ("sd", ("--images", "REAL"), "--images: a StableDiffusionPipeline draws from prompts alone; give --strength"),
        ("sd", ("--strength", "0.6"), "--images: a StableDiffusionImg2ImgPipeline starts from real images"),
        ("sd", ("--strength", "0.1", "--images", "REAL"), "--strength: 0.1 of 4 steps leaves none to draw"),
        ("sd", ("--strength", "1.5", "--images", "REAL"), "--strength: 1.5 was given, expected 0 to 1"),
        ("sd", ("--noise-level", "3"), "--noise-level: a StableDiffusionPipeline has none"),
        ("unclip", (), "--images: a StableUnCLIPImg2ImgPipeline starts from real images"),
        ("unclip", ("--strength", "0.6", "--images", "REAL"), "--strength: a StableUnCLIPImg2ImgPipeline has none"),
        ("variation", ("--images", "REAL", "--negative-prompt", "x"), "VariationPipeline takes none; leave it out"),
        ("unclip", ("--images", "/nowhere"), "--images: no tars and no .jpg"),
    ],
)
def test_flags_that_do_not_fit_the_pipeline_are_refused(table, real, tmp_path, family, flags, told):
    model = write_image_pipeline(tmp_path / family, family)
    flags = [str(real) if flag == "REAL" else flag for flag in flags]
    with pytest.raises(InputError, match=told):
        main(["--model", str(model), "--prompts", str(table), "--out", str(tmp_path / "a"), *QUICK, *flags])
    assert not (tmp_path / "a").exists()


def test_a_part_that_sees_images_is_needed_and_counted(tmp_path):
    model = write_image_pipeline(tmp_path / "unclip", "unclip")
    before = find_model(str(model)).sha256
    config = model / "feature_extractor" / "preprocessor_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"resample": 2}))
    assert find_model(str(model)).sha256 != before, "what prepares an image decides pictures too"
    config.unlink()
    with pytest.raises(InputError, match="preprocessor_config.json is missing"):
        find_model(str(model))
    shutil.rmtree(model / "image_encoder")
    with pytest.raises(InputError, match="preprocessor_config.json is missing|the folder image_encoder/ is missing"):
        find_model(str(model))


def test_real_images_take_turns_by_class_and_come_once(real, tmp_path):
    classes = load_classes(str(_digits(tmp_path, 8)))
    (tmp_path / "real").mkdir()
    for n in range(40):
        folder = tmp_path / "real" / str(n % 8 if n < 32 else 0)
        folder.mkdir(exist_ok=True)
        (folder / f"{n}.png").touch()
    rows = next(make_table("real-images", Inputs(classes=classes, images=tmp_path / "real"), None).blocks()).to_pylist()
    assert len({row["source_key"] for row in rows}) == 40
    assert all(sorted(row["label"] for row in rows[at : at + 8]) == list(range(8)) for at in range(0, 32, 8))
    assert all(row["source_key"].split("/")[1] == row["class_id"] for row in rows), "the folder is the class"
    with pytest.raises(InputError, match="--images: this recipe needs"):
        make_table("real-images", Inputs(classes=classes), None)
    with pytest.raises(InputError, match="class '9' is none of"):
        (tmp_path / "real" / "9").mkdir()
        (tmp_path / "real" / "9" / "x.png").touch()
        make_table("real-images", Inputs(classes=classes, images=tmp_path / "real"), None)
    assert Labels(classes).of("x", 0, pa.array(["3", "three"])).tolist() == [3, 3]
