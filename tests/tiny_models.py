"""Tiny random checkpoints of the article's three architectures, and of two for CPUs.

Made with the real configuration classes and saved by the real saving code of transformers, so
that files, keys and processors are laid out as those of the hub's checkpoints, which
``docs/checkpoints.json`` describes. Weights are random; their scale is such that scores of
different pictures differ.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipTextConfig,
    BlipVisionConfig,
    CLIPImageProcessor,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    GPT2Tokenizer,
    OPTConfig,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

AESTHETICS_NAME = "shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE"
"""DataJuicer takes the architecture, and whether to divide by ten, from the path's name."""

OPT_TOKENS = 50265
"""Entries of OPT's vocabulary; the token that stands for a query is the next one."""
_OPT_ROWS = 50272
"""Rows of OPT's embedding, more than it has tokens."""
_QUERIES = 32
_TRAINED_TOKENS = 600

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
"""Of every tower."""

_TEXT = """
A camera follows two riders down a narrow path between the trees. The path turns left, then
right, and the riders lean into each bend while dust rises behind their wheels. In the next shot
a large white rabbit looks out of its burrow, stretches, and watches a butterfly above the grass.
Somebody sits in a car, talks to the camera and points at the window, where houses pass by.
Question: what is happening in this video? Answer: a person rides a bicycle through the forest.
"""
"""What the tokenizer is trained on."""


@dataclass(frozen=True)
class TinyCheckpoints:
    """Folders of checkpoints."""

    safety: Path
    aesthetics: Path
    video_blip: Path


def make_checkpoints(folder: Path) -> TinyCheckpoints:
    """All three, below ``folder``."""
    return TinyCheckpoints(
        safety=make_safety(folder / "Falconsai" / "nsfw_image_detection"),
        aesthetics=make_aesthetics(folder / AESTHETICS_NAME),
        video_blip=make_video_blip(folder / "kpyu" / "video-blip-opt-2.7b-ego4d"),
    )


def make_safety(folder: Path, labels: tuple[str, ...] = ("normal", "nsfw"), seed: int = 1) -> Path:
    """A ViT that sorts pictures into ``labels``."""
    torch.manual_seed(seed)
    config = ViTConfig(
        **_SIZES,
        image_size=224,
        patch_size=16,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    _save(ViTForImageClassification(config), folder, scale=5)
    ViTImageProcessor().save_pretrained(folder)
    return folder


def make_aesthetics(folder: Path, seed: int = 2) -> Path:
    """CLIP's vision tower and projection, and the predictor's head."""
    torch.manual_seed(seed)
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            **_SIZES,
            image_size=224,
            patch_size=14,
            projection_dim=16,
        )
    )
    model.layers = nn.Sequential(
        nn.Linear(16, 1024),
        nn.Dropout(),
        nn.Linear(1024, 128),
        nn.Dropout(),
        nn.Linear(128, 64),
        nn.Dropout(),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )
    _save(model, folder, scale=3)
    # As the repository has it: its own code for the class, which nothing here runs.
    _edit_config(
        folder,
        architectures=["AestheticsPredictorV2Linear"],
        auto_map={
            "AutoConfig": "configuration_predictor.AestheticsPredictorConfig",
            "AutoModel": "modeling_v2.AestheticsPredictorV2Linear",
        },
        model_type="aesthetics_predictor",
    )
    save_aesthetics_processors(folder)
    return folder


def save_aesthetics_processors(folder: Path) -> None:
    """What stands beside the weights of a predictor."""
    CLIPImageProcessor().save_pretrained(folder)
    # DataJuicer loads a processor for texts as well, and gives it none.
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>"]
    CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[]
    ).save_pretrained(folder)


def make_video_blip(folder: Path, seed: int = 3) -> Path:
    """BLIP-2 with OPT as its language model, whose vocabulary is as large as the real one."""
    torch.manual_seed(seed)
    vision = Blip2VisionConfig(
        **_SIZES,
        image_size=224,
        patch_size=14,
        initializer_range=0.02,
    )
    qformer = Blip2QFormerConfig(
        **_SIZES,
        encoder_hidden_size=32,
        cross_attention_frequency=2,
    )
    text = OPTConfig(
        vocab_size=_OPT_ROWS,
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=64,
        max_position_embeddings=256,
    )
    config = Blip2Config(
        vision_config=vision.to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=_QUERIES,
    )
    model = Blip2ForConditionalGeneration(config)
    with torch.no_grad():
        # Saved as zeros by a model that was never trained; all queries would then be the same.
        model.query_tokens.normal_(std=0.5)
        # It should answer in the words that fill up the vocabulary: of the tokens before them many
        # are single bytes, and different ones may read the same.
        model.get_input_embeddings().weight[:_TRAINED_TOKENS] *= 0.3
    _save(model, folder, scale=6)
    # The real one was saved before this was written into configurations.
    _edit_config(folder, image_token_index=None)
    save_video_blip_processors(folder)
    return folder


def save_video_blip_processors(folder: Path) -> None:
    """What stands beside the weights of VideoBLIP."""
    # Image processor and tokenizer in files of their own, and no token yet that stands for a query.
    BlipImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)
    _opt_like().save_pretrained(folder)


def make_small_aesthetics(folder: Path, seed: int = 4) -> Path:
    """The predictor with one linear layer, as the smaller of the hub's have it."""
    torch.manual_seed(seed)
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            **_SIZES,
            image_size=224,
            patch_size=32,
            projection_dim=16,
        )
    )
    model.predictor = nn.Linear(16, 1)
    _save(model, folder, scale=4)
    _edit_config(folder, architectures=["AestheticsPredictorV1"])
    CLIPImageProcessor().save_pretrained(folder)
    return folder


def make_blip(folder: Path, seed: int = 5) -> Path:
    """BLIP, which describes single pictures, with a vocabulary of a few words."""
    torch.manual_seed(seed)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
    words += [
        *[
            "a",
            "photo",
            "of",
            "the",
            "rider",
            "forest",
            "car",
            "tree",
            "path",
            "dust",
            "rabbit",
            "wheel",
        ]
    ]
    text = BlipTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        encoder_hidden_size=32,
        projection_dim=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=words.index("[DEC]"),
        eos_token_id=words.index("[CLS]"),
        sep_token_id=words.index("[SEP]"),
        pad_token_id=words.index("[PAD]"),
    )
    vision = BlipVisionConfig(
        **_SIZES,
        projection_dim=32,
        image_size=96,
        patch_size=16,
        initializer_range=0.02,
    )
    model = BlipForConditionalGeneration(
        BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    )
    _save(model, folder, scale=6)
    BlipImageProcessor(size={"height": 96, "width": 96}).save_pretrained(folder)
    BertTokenizer(
        vocab={word: index for index, word in enumerate(words)},
        additional_special_tokens=["[DEC]", "[ENC]"],
    ).save_pretrained(folder)
    return folder


def _save(model: Any, folder: Path, scale: float) -> None:
    """Save a model, its weights scaled up: at their usual scale all pictures score the same."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(scale)
    model.save_pretrained(folder)


def _edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | values
    kept = {key: value for key, value in config.items() if value is not None}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True), encoding="utf-8")


def _opt_like() -> GPT2Tokenizer:
    """A byte-level BPE trained on a few sentences, with OPT's special tokens and size.

    Words of syllables fill it up to OPT's size: whatever token a random model gives is a word.
    """
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_TRAINED_TOKENS,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(_TEXT.splitlines(), trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou")]
    words = ("Ġ" + "".join(parts) for parts in itertools.product(syllables, repeat=3))
    for word in itertools.islice(words, OPT_TOKENS - len(vocabulary)):
        vocabulary.setdefault(word, len(vocabulary))
    merges = [tuple(merge) for merge in model["merges"]]
    return GPT2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        add_bos_token=True,
        bos_token=AddedToken("</s>", special=True),
        eos_token=AddedToken("</s>", special=True),
        unk_token=AddedToken("</s>", special=True),
        pad_token=AddedToken("<pad>", special=True),
        model_max_length=256,
    )
