"""Tiny checkpoints for pictures: ViT, ConvNeXT and GLPN, with their image processors, and encoders of a few more.

The processors that Pillow works for are saved; AutoImageProcessor takes torchvision's of the same names where it can.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessorPil,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessorPil,
    GLPNConfig,
    GLPNForDepthEstimation,
    GLPNImageProcessorPil,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTModel,
)

from tests.checkpoints import SMALL

SPECIES = {0: "tabby", 1: "plane", 2: "coffee", 3: "rocket", 4: "coin", 5: "page", 6: "brick"}
SIDE = 32
_VIT: dict[str, Any] = SMALL | {"image_size": SIDE, "patch_size": 8, "initializer_range": 0.3}
_STAGES: dict[str, Any] = {"depths": [1, 1], "hidden_sizes": [8, 32], "num_stages": 2, "initializer_range": 0.3}


def labelled(labels: dict[int, str]) -> dict[str, Any]:
    return {"id2label": labels, "label2id": {name: i for i, name in labels.items()}}


def make_image_classifier(folder: Path, architecture: str = "vit", **config: Any) -> Path:
    """A classifier of seven labels in `folder`: vit, convnext (crops) or convnext-384 (warps)."""
    torch.manual_seed(17)
    model: Any
    if architecture == "vit":
        model = ViTForImageClassification(ViTConfig(**(_VIT | labelled(SPECIES) | config)))
    else:
        model = ConvNextForImageClassification(ConvNextConfig(**(_STAGES | labelled(SPECIES) | config)))
    with torch.no_grad():
        model.classifier.weight.mul_(3)
    model.save_pretrained(folder)
    image_processor(architecture).save_pretrained(folder)
    return folder


def image_processor(architecture: str) -> Any:
    if architecture == "vit":
        return ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    if architecture == "convnext":
        return ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=0.875)
    return ConvNextImageProcessorPil(size={"shortest_edge": 384})


def make_image_encoder(folder: Path, architecture: str = "vit") -> Path:
    """An encoder in `folder`: vit, vit-unpooled (without the pooling layer), convnext, dinov2 or swin."""
    torch.manual_seed(19)
    model: Any
    if architecture == "convnext":
        model = ConvNextModel(ConvNextConfig(**_STAGES))
    elif architecture == "dinov2":
        model = Dinov2Model(Dinov2Config(**(_VIT | {"mlp_ratio": 2})))
    elif architecture == "swin":
        shape: dict[str, Any] = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
        model = SwinModel(SwinConfig(image_size=SIDE, patch_size=4, initializer_range=0.3, **shape))
    else:
        model = ViTModel(ViTConfig(**_VIT), add_pooling_layer=architecture == "vit")
    model.save_pretrained(folder)
    image_processor("convnext" if architecture == "convnext" else "vit").save_pretrained(folder)
    return folder


def make_depth_estimator(folder: Path, architecture: str = "glpn") -> Path:
    """A model of depth in `folder`: glpn, which keeps a picture's shape, or dpt, which has one of its own."""
    torch.manual_seed(23)
    model: Any
    processor: Any
    if architecture == "glpn":
        stages: dict[str, Any] = {
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 16, 16, 32],
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 16,
        }
        model = GLPNForDepthEstimation(GLPNConfig(initializer_range=0.3, **stages))
        processor = GLPNImageProcessorPil()
    else:
        sizes = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8, "is_hybrid": False}
        layers = {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]}
        model = DPTForDepthEstimation(DPTConfig(**(_VIT | layers | sizes)))
        processor = DPTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
