"""One network of every family that timm has: trained for a step, stored, exported and read back."""

import pytest
import timm
import torch
import torch.nn.functional as F

from synclones.base.errors import InputError
from synclones.models.folder import export_classifier, load_classifier
from synclones.models.network import Classifier, Preprocessing, check_network, create_network
from synclones.train.recovery.checkpoint import Checkpoint, check_tensors, read_checkpoint, save_checkpoint
from synclones.train.settings import TrainConfig
from synclones.train.step.optimizer import expected_state, new_optimizer, optimizer_state

# The smallest network of each of timm's modules, by name; a module that timm adds fails the first test.
QUICK = """
    deit_tiny_patch16_224 dla46x_c gmlp_ti16_224 lcnet_035 mobilevit_xxs pit_ti_224 starnet_s050 test_byobnet
    test_coatnet test_convnext test_mambaout test_nfnet test_resnet test_vit_relpos vit_tiny_patch16_224
""".split()
OTHERS = """
    cait_xxs24_224 convit_tiny convmixer_768_32 cpubone_nano crossvit_tiny_240 cs3darknet_focus_s csatv2
    cspnext_tiny davit_tiny densenet121 dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0
    efficientvim_m1 efficientvit_b0 efficientvit_m0 ese_vovnet19b_slim_dw fasternet_t0 fastvit_t8 focalnet_tiny_srf
    gcvit_xxtiny ghostnet_050 halonet_h1 hardcorenas_b hgnetv2_b0 hiera_tiny_224 hrnet_w18_small iformer_t
    inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small legacy_seresnet18
    legacy_xception levit_128s lowformer_b0 mvitv2_tiny nest_tiny nextvit_small poolformerv2_s12 pvt_v2_b0
    rdnet_tiny regnetx_002 repghostnet_050 repvit_m1 res2next50 resnest14d resnetv2_18 rexnet_100 sam2_hiera_tiny
    selecsls42 sequencer2d_s shvit_s1 skresnet18 swiftformer_xs swin_s3_tiny_224 swinv2_cr_tiny_224
    swinv2_tiny_window8_256 tiny_vit_5m_224 tinynet_e tnt_s_legacy_patch16_224 tresnet_m twins_svt_small
    visformer_tiny vit_tiny_patch16_dinov3_qkvb vit_tiny_r_s16_p8_224 vitamin_small_224 volo_d1_224 xception41p
    xcit_tiny_24_p8_224
""".split()
LARGE = """
    beit_base_patch16_224 deepseek_vit_412m gemma4_vit_167m mobilenetv5_base naflexvit_base_patch16_parfac_gap
    nasnetalarge pnasnet5large qwen3_vit_88m samvit_base_patch16_224 vgg11
""".split()  # more than 60 million parameters: looked at without numbers
SHARED = ["coat_tiny"]
SIDE_PX = {
    "deepseek_vit_412m": 56,
    "gemma4_vit_167m": 96,
    "crossvit_tiny_240": 240,
    "efficientformer_l1": 224,
    "inception_resnet_v2": 96,
    "inception_v3": 96,
    "inception_v4": 96,
    "halonet_h1": 256,
}
NUM_CLASSES = 10


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_family_is_tried():
    known = {name for name in (*QUICK, *OTHERS, *LARGE, *SHARED)}
    missing = [module for module in timm.list_modules() if not known & set(timm.list_models(module=module))]
    assert not missing, "add the smallest network of each to the list"


def _trains_and_comes_back(name: str, folder) -> None:
    side = SIDE_PX.get(name, 64)
    check_network(name, NUM_CLASSES, side, {}, 2)
    torch.manual_seed(0)
    network = create_network(name, NUM_CLASSES, side, {})
    classifier = Classifier(network, Preprocessing(size_px=side), tuple("0123456789")).train()
    parameters = dict(network.named_parameters())
    optimizer = new_optimizer(network, TrainConfig(steps=1), torch.device("cpu"))
    F.cross_entropy(classifier(torch.rand(2, 3, side, side)), torch.tensor([1, 2])).backward()
    optimizer.step()
    weights = {key: tensor.detach().contiguous() for key, tensor in network.state_dict().items()}
    moments = {key: tensor.contiguous() for key, tensor in optimizer_state(optimizer, parameters).items()}
    path = save_checkpoint(folder / "checkpoints", Checkpoint(1, "plan", weights, moments, {"skipped": 0}), 1)
    stored = read_checkpoint(path)
    check_tensors(stored.model, network.state_dict())
    check_tensors(stored.optimizer, expected_state(parameters))
    export_classifier(folder / "export", classifier, {}, "a card")
    read, image = load_classifier(folder / "export")[0], torch.rand(1, 3, side, side)
    with torch.no_grad():
        assert torch.allclose(read(image), classifier.eval()(image), atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_a_network_trains_is_stored_and_comes_back(name, tmp_path):
    _trains_and_comes_back(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_a_network_of_each_other_family_does_so_too(name, tmp_path):
    _trains_and_comes_back(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_network_is_looked_at_in_no_memory(name):
    check_network(name, NUM_CLASSES, SIDE_PX.get(name, 64), {}, 2)


@pytest.mark.parametrize("name", SHARED)
def test_a_network_that_cannot_be_stored_says_so(name):
    with pytest.raises(InputError, match=f"--architecture {name}: cannot be stored, .* and .* are one tensor"):
        check_network(name, NUM_CLASSES, 64, {}, 2)


def test_a_network_that_gives_no_row_of_outputs_per_image_says_so(monkeypatch):
    class Pair(torch.nn.Linear):
        def forward(self, images):
            return super().forward(images.flatten(2).mean(2))[None]

    monkeypatch.setattr("synclones.models.network.create_network", lambda *given: Pair(3, NUM_CLASSES))
    with pytest.raises(InputError, match=r"gives \[1, 2, 10\] for 2 images, expected one row of 10 outputs each"):
        check_network("any", NUM_CLASSES, 64, {}, 2)
