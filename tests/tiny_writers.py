"""Tiny models that write text, with random weights but every key of the real ones: BLIP-2 and a Llama.

In: a folder. Out: it, as ``save_pretrained`` fills it. They may say anything but nothing: only words are allowed.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    PreTrainedTokenizerFast,
)

SPECIAL = ["<pad>", "</s>", "<unk>", "<image>"]
TEXT = ["a photo of a dog on the grass by the lake in the sun", "two red cars drive past an old stone bridge"]


def tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=360, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="</s>", bos_token="</s>", unk_token="<unk>"
    )


def _words_only(head: torch.nn.Linear, norm: torch.nn.Module, words: PreTrainedTokenizerFast) -> None:
    """Weights that never say a token outside the training text: every state has the same large sum, which those tokens
    weigh negatively. What is said among the others depends on the input."""
    said = {token for text in TEXT for token in words(text)["input_ids"]}
    with torch.no_grad():
        torch.nn.init.normal_(head.weight)
        head.weight -= head.weight.mean(1, keepdim=True)
        head.weight[[token for token in range(len(words)) if token not in said]] = -1.0
        norm.bias.fill_(5.0)


def write_blip2(folder: Path) -> Path:
    words = tokenizer()
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = OPTConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=64,
        max_position_embeddings=128,
        word_embed_proj_dim=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        tie_word_embeddings=False,  # a tied head would repeat the word before
        attention_dropout=0.0,
    )
    config = Blip2Config(
        vision_config={**size, "intermediate_size": 64, "image_size": 32, "patch_size": 16},
        qformer_config={**size, "intermediate_size": 64, "vocab_size": 300, "encoder_hidden_size": 32},
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=SPECIAL.index("<image>"),
    )
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config)
    decoder = model.language_model.model.decoder
    for part in (decoder.embed_positions, decoder.layers[0].self_attn.v_proj, model.language_projection):
        torch.nn.init.normal_(part.weight)  # so that words differ by place, and captions by picture
    _words_only(model.language_model.lm_head, decoder.final_layer_norm, words)
    model.save_pretrained(folder)
    Blip2Processor(BlipImageProcessor(size={"height": 32, "width": 32}), words, num_query_tokens=4).save_pretrained(
        folder
    )
    return folder


def write_llama(folder: Path) -> Path:
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    said = {token for text in TEXT for token in words(text)["input_ids"]}
    model.generation_config.suppress_tokens = [token for token in range(len(words)) if token not in said]
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
