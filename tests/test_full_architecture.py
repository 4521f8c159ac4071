"""Models at their published sizes, with random weights: ``make test-full``, not part of ``make test``.

Each is built from its published configuration, saved, loaded by the shipped loader and run on one
batch. Needs 24 GB of memory and 8 GB of disk.
"""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file, save_model
from transformers import (
    AutoTokenizer,
    BertConfig,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

from benchmarks.models import FAMILIES
from stages.base import Weights
from stages.edit.config import EditConfig
from stages.edit.draw import Drawing
from stages.edit.prompt_to_prompt.attention import install
from stages.edit.request import EditRequest, Turn
from stages.models.clip import Clip
from stages.models.convert import GROUNDING, SEGMENTERS
from stages.models.diffusion import DiffusionConfig
from stages.models.grounding import GroundingConfig, load_detector
from stages.models.grounding import architecture as grounding
from stages.models.grounding.transformers_detector import TransformersDetector
from stages.models.segmenter import SegmenterWeights, load_segmenter
from stages.models.segmenter import architecture as segmenter
from stages.pictures.png import decode_rgb
from stages.pictures.region import MaskedRegion
from stages.tasks import Tasks
from tests.stages.detector_weights import in_transformers
from tests.stages.tiny_models import save_text_encoder
from tests.stages.tiny_tasks import tiny_task
from toybox.recipes.tokenizer import build_tokenizer

pytestmark = pytest.mark.full

PICTURES = list(np.random.default_rng(0).integers(0, 256, (2, 512, 512, 3), np.uint8))


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory) -> Path:
    """Stable Diffusion 1.5: 860 M parameters of U-Net, its VAE and CLIP ViT-L/14's text side."""
    folder = tmp_path_factory.mktemp("sd15")
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
            )
        ),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(layers_per_block=2, **FAMILIES["sd15"]),
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def test_stable_diffusion_draws_an_edit(stable_diffusion):
    """The recipe's own call: a source and its edit under a soft mask, two steps."""
    task = tiny_task(composite=True, candidates=[{"mask": "soft", "cross_until": 1, "self_until": 0.5}])
    diffusion = DiffusionConfig(model=str(stable_diffusion), steps=2)
    drawing = Drawing(EditConfig(diffusion=diffusion, batch=1), Tasks({"local": task}))
    assert sum(p.numel() for p in drawing.model.unet.parameters()) == pytest.approx(859.5e6, rel=0.001)
    half = np.zeros((512, 512), np.float32)
    half[:, :256] = 1
    row = {
        "id": "a",
        "task": "local",
        "caption": "a red car on a beach",
        "output_caption": "a blue boat on a beach",
        "edited_object": "a blue boat",
        "original_object": "a red car",
        "seed": 5,
        "surroundings": "",
        "instruction": "make the car a boat",
    }
    region = MaskedRegion(half, np.float32([[0, 0, 256, 512]]), half, half)
    columns = drawing.edit([EditRequest(Turn(row, region), PICTURES[0], ())])["a"].columns
    anchor, edited = decode_rgb(columns["anchor"]), decode_rgb(columns["candidates"][0]["image"])
    assert anchor.shape == edited.shape == (512, 512, 3)
    assert (anchor[:, :256] != edited[:, :256]).any()
    seam = 256 + 2 * 512 // 32  # the feathered edge of the pasted outside
    assert (anchor[:, seam:] == edited[:, seam:]).all(), "outside its mask a composited edit changes nothing"


@pytest.fixture(scope="module")
def swin_t(tmp_path_factory) -> Path:
    """GroundingDINO Swin-T with BERT base; its tokenizer knows the tests' words alone."""
    folder = tmp_path_factory.mktemp("swin-t")
    torch.manual_seed(0)
    text = save_text_encoder(folder / grounding.TEXT_ENCODER)
    BertConfig().save_pretrained(text)
    architecture = GROUNDING["groundingdino-swin-t"]
    (folder / "config.json").write_text(architecture.model_dump_json())
    save_model(grounding.build(architecture, text).eval(), str(folder / "model.safetensors"))
    return folder


def test_grounding_dino_equals_transformers_at_full_size(swin_t):
    ours = load_detector(GroundingConfig(model=str(swin_t)))
    assert sum(p.numel() for p in ours.model.parameters()) == pytest.approx(172e6, rel=0.02)
    tokenizer = AutoTokenizer.from_pretrained(swin_t / grounding.TEXT_ENCODER)
    twin, processor = in_transformers(ours.model, GROUNDING["groundingdino-swin-t"], tokenizer)
    twin.model.special_tokens = torch.tensor(tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", ".", "?"]))
    theirs = TransformersDetector(twin, processor, GroundingConfig(model="twin", library="transformers"))
    # A side of 800, so that neither library resizes: their resizing differs in the last bits.
    picture = [np.random.default_rng(1).integers(0, 256, (800, 800, 3), np.uint8)]
    one, other = (detector.predict(picture, ["a striped red car"]) for detector in (ours, theirs))
    (boxes,), (their_boxes,), seen = one[0], other[0], one[2][0]
    # Queries have the rank of their scores, and random weights score some alike to the last bits: those two
    # may have changed places, and each then has the other's learned embedding.
    same = torch.cdist(boxes, their_boxes).argmin(1) == torch.arange(900)
    assert same.sum() > 880
    torch.testing.assert_close(their_boxes[same], boxes[same], atol=1e-3, rtol=0)
    logits = other[1][0][same][:, : len(seen)]
    torch.testing.assert_close(logits[:, seen], one[1][0][same][:, seen], atol=1e-3, rtol=0)


def test_segment_anything_vit_b_segments_a_box(tmp_path):
    torch.manual_seed(0)
    architecture = SEGMENTERS["sam-vit-b"]
    model = segmenter.build(architecture)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(93.7e6, rel=0.01)
    (tmp_path / "config.json").write_text(architecture.model_dump_json())
    save_model(model, str(tmp_path / "model.safetensors"))
    boxes = [
        np.array([[10, 20, 300, 400]], np.float32),
        np.array([[5, 5, 50, 60], [0, 0, 512, 512]], np.float32),
    ]
    masks = load_segmenter(SegmenterWeights(model=str(tmp_path))).segment(PICTURES, boxes, batch=1)
    assert [mask.shape for mask in masks] == [(1, 512, 512), (2, 512, 512)]


def test_clip_vit_l_14_comes_back_as_it_was(tmp_path):
    torch.manual_seed(0)
    network = open_clip.create_model("ViT-L-14").eval()
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(427.6e6, rel=0.001)
    build_tokenizer().save_pretrained(tmp_path)
    config = {"model_cfg": open_clip.get_model_config("ViT-L-14"), "preprocess_cfg": {}}
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "beside this file"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    clip = Clip.load(Weights(model=str(tmp_path)))
    features = clip.encode_images(PICTURES, batch=2)
    assert features.shape == (2, 768)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    for name, tensor in network.state_dict().items():
        assert torch.equal(clip.model.state_dict()[name], tensor), name


def test_sdxl_takes_its_conditioning_on_the_meta_device():
    """2.6 G parameters would not fit beside a test: shapes alone, under our attention control."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(layers_per_block=2, **FAMILIES["sdxl"])
        install(unet)
        assert sum(p.numel() for p in unet.parameters()) == pytest.approx(2567.5e6, rel=0.001)
        predicted = unet(
            torch.empty(2, 4, 128, 128),
            torch.tensor(5),
            torch.empty(2, 77, 2048),
            added_cond_kwargs={"text_embeds": torch.empty(2, 1280), "time_ids": torch.empty(2, 6)},
        ).sample
    assert predicted.shape == (2, 4, 128, 128)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory) -> Path:
    """SDXL's U-Net, VAE and both text encoders, in bfloat16 so that 8 GB of memory are enough."""
    folder, tokenizer = tmp_path_factory.mktemp("sdxl"), build_tokenizer()
    torch.manual_seed(0)
    small = {"vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
    small |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.set_default_dtype(torch.bfloat16)
    try:
        StableDiffusionXLPipeline(
            vae=AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                latent_channels=4,
                sample_size=1024,
                scaling_factor=0.13025,
                force_upcast=True,
            ),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    hidden_size=768,
                    intermediate_size=3072,
                    num_hidden_layers=12,
                    num_attention_heads=12,
                    **small,
                )
            ),
            text_encoder_2=CLIPTextModelWithProjection(
                CLIPTextConfig(
                    hidden_size=1280,
                    intermediate_size=5120,
                    num_hidden_layers=32,
                    num_attention_heads=20,
                    projection_dim=1280,
                    **small,
                )
            ),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=UNet2DConditionModel(layers_per_block=2, **FAMILIES["sdxl"]),
            scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        ).save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    return folder


def test_sdxl_draws_a_pair_of_768_x_1344(sdxl):
    """The recipe's own call at a size of SDXL's list: two steps, attention control, LocalBlend, chunks."""
    candidate = {"mask": "soft", "cross_until": 1, "self_until": 0.5, "blend": 0.3}
    task = tiny_task(composite=True, candidates=[candidate])
    size = {"height": 768, "width": 1344}
    diffusion = DiffusionConfig(
        model=str(sdxl), steps=2, guidance_scale=1.0, dtype="bfloat16", vae_chunk=1, **size
    )
    config = EditConfig(diffusion=diffusion, batch=1, self_max_tokens=1024, blend_tokens=1024)
    drawing = Drawing(config, Tasks({"local": task}))
    assert sum(p.numel() for p in drawing.model.unet.parameters()) == pytest.approx(2567.5e6, rel=0.001)
    left = np.zeros((768, 1344), np.float32)
    left[:, :672] = 1
    region = MaskedRegion(left, np.float32([[0, 0, 672, 768]]), left, left)
    row = {
        "id": "a",
        "task": "local",
        "seed": 1,
        "caption": "a red car",
        "output_caption": "a blue car",
        "original_object": "a red car",
        "edited_object": "a blue car",
        "surroundings": "",
        "instruction": "make the car blue",
    }
    picture = np.zeros((768, 1344, 3), np.uint8)
    [decision] = drawing.edit([EditRequest(Turn(row, region), picture, ())]).values()
    assert decision.status == "kept", decision.reason
    anchor = decode_rgb(decision.columns["anchor"])
    target = decode_rgb(decision.columns["candidates"][0]["image"])
    assert anchor.shape == target.shape == (768, 1344, 3)
    assert (anchor[:, 724:] == target[:, 724:]).all(), "outside the mask, the source is pasted"
    assert (anchor[:, :640] != target[:, :640]).any()
