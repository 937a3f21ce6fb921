"""Tiny checkpoints that find things in pictures: DETR, Mask2Former on Swin, SegFormer, with their image processors.

Untrained, their heads would say nearly the same of every picture. `spread` sets each head so that its outputs are
centred and as wide apart as asked: answers differ, and near-ties don't flip.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessorPil,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorPil,
    ResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessorPil,
    SwinConfig,
)

LABELS = ["cat", "dog", "cup", "road", "sky", "tree"]
NAMES: dict[str, Any] = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}


def spread(model: Any, head: Any, width: float, axis: int = -1) -> None:
    """Scale and shift the last layer `head` so that each of its channels, on `axis`, has mean 0 and deviation `width`.

    Measured over smooth pictures of random colours.
    """
    found: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    coarse = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        model.eval()(torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bicubic"))
        hook.remove()
        values = torch.cat([output.movedim(axis, 0).flatten(1) for output in found], dim=1)
        scale = width / values.std(dim=1)
        head.weight.mul_(scale.view(-1, *[1] * (head.weight.dim() - 1)))
        head.bias.copy_((head.bias - values.mean(dim=1)) * scale)


def make_detector(folder: Path, **processor: Any) -> Path:
    """A DETR on a ResNet of Transformers' own, which needs no timm. Its pictures keep their shape."""
    torch.manual_seed(23)
    stages: Any = {"out_features": ["stage4"]}
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic", **stages
    )
    own: Any = {"use_timm_backbone": False}
    config = DetrConfig(
        backbone_config=backbone,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=12,
        **own,
        **NAMES,
    )
    model: Any = DetrForObjectDetection(config)
    with torch.no_grad():
        # Else every query finds the same: they differ only in where they look.
        model.model.query_position_embeddings.weight.mul_(50)
        for layer in model.model.decoder.layers:
            layer.encoder_attn.q_proj.weight.mul_(6)
    spread(model, model.model.input_projection, 2.0, axis=1)
    spread(model, model.class_labels_classifier, 3.5)
    spread(model, model.bbox_predictor.layers[-1], 1.0)
    model.save_pretrained(folder)
    size = {"shortest_edge": 96, "longest_edge": 160}
    DetrImageProcessorPil(**({"size": size} | processor)).save_pretrained(folder)
    return folder


def make_segmenter(folder: Path, **processor: Any) -> Path:
    """A Mask2Former on a Swin. Its pictures keep their shape, up to what 32 divides."""
    torch.manual_seed(31)
    stages: Any = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    backbone = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, drop_path_rate=0.0, **stages
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=2,
        num_queries=10,
        **NAMES,
    )
    model: Any = Mask2FormerForUniversalSegmentation(config)
    spread(model, model.model.pixel_level_module.decoder.mask_projection, 1.0, axis=1)
    predictor = model.model.transformer_module.decoder.mask_predictor
    spread(model, predictor.mask_embedder.layers[-1].layers[0], 1.0)
    spread(model, model.class_predictor, 3.0)
    model.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 128}
    Mask2FormerImageProcessorPil(**({"size": size} | processor)).save_pretrained(folder)
    return folder


def make_semantic(folder: Path, **processor: Any) -> Path:
    """A SegFormer, which sees every picture at one size."""
    torch.manual_seed(37)
    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        initializer_range=0.4,
        drop_path_rate=0.0,
        **NAMES,
    )
    model: Any = SegformerForSemanticSegmentation(config)
    spread(model, model.decode_head.classifier, 3.0, axis=1)
    model.save_pretrained(folder)
    SegformerImageProcessorPil(**({"size": {"height": 64, "width": 64}} | processor)).save_pretrained(folder)
    return folder
