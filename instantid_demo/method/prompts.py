"""Words to text embeddings: A1111 weights, `BREAK`, embeddings, prompts of any length, for SDXL and SD1.5."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from instantid_demo.method import embeddings as inversion
from instantid_demo.request import RequestError

Layout = Literal["padded", "reference"]
Weighted = list[tuple[str, float]]

_PIECE = re.compile(r"\\[()\[\]\\]?|:\s*(?P<weight>[+-]?\d*\.?\d+)\s*\)|[()\[\]]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
ROUND, SQUARE = 1.1, 1 / 1.1


def parse_weights(prompt: str) -> Weighted:
    """Pieces of text with their weights: `(x)` 1.1, `(x:1.3)` 1.3, `[x]` 1/1.1, nested; `\\(` is a plain bracket.

    A bracket that is never closed reaches to the end; one that was never opened is text.
    """
    pieces: list[list[Any]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(start: int, factor: float) -> None:
        for piece in pieces[start:]:
            piece[1] *= factor

    for match in _PIECE.finditer(prompt):
        text = match[0]
        if text.startswith("\\"):
            pieces.append([text[1:], 1.0])
        elif text in opened:
            opened[text].append(len(pieces))
        elif match["weight"] and opened["("]:
            weigh(opened["("].pop(), float(match["weight"]))
        elif text == ")" and opened["("]:
            weigh(opened["("].pop(), ROUND)
        elif text == "]" and opened["["]:
            weigh(opened["["].pop(), SQUARE)
        else:
            pieces.append([text, 1.0])
    for start in opened["("]:
        weigh(start, ROUND)
    for start in opened["["]:
        weigh(start, SQUARE)

    merged: list[list[Any]] = []
    for text, weight in pieces:
        if merged and merged[-1][1] == weight:
            merged[-1][0] += text
        else:
            merged.append([text, weight])
    return [(text, weight) for text, weight in merged]


def encode(
    pipe: Any,
    prompt: str,
    negative: str | None = "",
    *,
    clip_skip: int | None = None,
    layout: Layout = "padded",
    learned: Mapping[str, inversion.Rows] | None = None,
) -> dict[str, Tensor]:
    """Text embeddings to pass on: `pipe(**encode(pipe, prompt, negative), …)`; pooled ones with SDXL only.

    Args:
        pipe: an SDXL or SD1.5 pipeline; its tokenizers may have any length.
        negative: None gives zeros where the base asks for that (`force_zeros_for_empty_prompt`); "" is encoded.
        clip_skip: layers of the text encoders to leave out at the end.
        layout: 'padded': every chunk is filled up to the encoder's length, so a plain short prompt gives what
            diffusers gives, and the pooled embedding is the first chunk's. 'reference': FORMAT.md quirk 13, a last
            chunk of its own length, shorter text filled with end tokens, and the last chunk's pooled embedding.
        learned: embeddings by the words of the prompts that stand for them.

    Returns:
        prompt_embeds and negative_prompt_embeds (1, L, D) of equal L; pooled_… (1, P).

    Raises:
        RequestError: more layers are to be left out than an encoder has.
    """
    parts = [(pipe.tokenizer, pipe.text_encoder)]
    sdxl = hasattr(pipe, "text_encoder_2")
    if sdxl:
        # The reference feeds the first tokenizer's ids to both encoders.
        parts.append((pipe.tokenizer if layout == "reference" else pipe.tokenizer_2, pipe.text_encoder_2))
    length = min(min(tok.model_max_length, enc.config.max_position_embeddings) for tok, enc in parts)
    known = [{word: rows[number] for word, rows in (learned or {}).items()} for number in range(len(parts))]
    chunked = [
        [_chunks(tok, text, length - 2, layout, rows) for text in (prompt, negative or "")]
        for (tok, _), rows in zip(parts, known, strict=True)
    ]
    if layout == "reference":
        for (tokenizer, _), texts in zip(parts, chunked, strict=True):
            _fill(texts, tokenizer.eos_token_id, length - 2)
    else:
        count = max(len(chunks) for texts in chunked for chunks in texts)
        chunked = [[chunks + [[]] * (count - len(chunks)) for chunks in texts] for texts in chunked]

    embeds: list[list[Tensor]] = [[], []]
    pooled: list[Any] = [None, None]
    with torch.no_grad():
        for (tokenizer, encoder), texts in zip(parts, chunked, strict=True):
            for side, chunks in enumerate(texts):
                size = length if layout == "padded" else 0
                outputs = [_encode_chunk(pipe, tokenizer, encoder, chunk, size, clip_skip) for chunk in chunks]
                embeds[side].append(torch.cat([states for states, _ in outputs], dim=1))
                pooled[side] = outputs[-1 if layout == "reference" else 0][1]
    positive, negatives = (torch.cat(side, dim=-1) for side in embeds)
    blank = negative is None and pipe.config.get("force_zeros_for_empty_prompt", False)
    result = {"prompt_embeds": positive, "negative_prompt_embeds": torch.zeros_like(negatives) if blank else negatives}
    if sdxl:
        result["pooled_prompt_embeds"] = pooled[0]
        result["negative_pooled_prompt_embeds"] = torch.zeros_like(pooled[1]) if blank else pooled[1]
    return result


Chunk = list[tuple[int | Tensor, float]]
"""Token ids, or vectors instead of a token's, with their weights, without start and end token."""


def _chunks(tokenizer: Any, text: str, capacity: int, layout: Layout, learned: Mapping[str, Tensor]) -> list[Chunk]:
    """The text in chunks of at most `capacity` tokens; `BREAK` starts a new one."""
    chunks = []
    for segment in _BREAK.split(text):
        tokens = [
            (token, weight) for piece, weight in parse_weights(segment) for token in _tokens(tokenizer, piece, learned)
        ]
        # The reference closes with a chunk of what is left, and be it nothing.
        stop = len(tokens) + 1 if layout == "reference" else max(len(tokens), 1)
        chunks += [tokens[start : start + capacity] for start in range(0, stop, capacity)]
    return chunks


def _tokens(tokenizer: Any, text: str, learned: Mapping[str, Tensor]) -> list[int | Tensor]:
    """Token ids of a text, and a vector for each row of an embedding that it names."""
    if not learned:
        return tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    names = "|".join(map(re.escape, sorted(learned, key=len, reverse=True)))
    tokens: list[int | Tensor] = []
    for piece in re.split(rf"(?<![\w.-])({names})(?![\w-])", text):
        if piece in learned:
            tokens += list(learned[piece])
        else:
            tokens += tokenizer(piece, add_special_tokens=False, verbose=False).input_ids
    return tokens


def _fill(texts: list[list[Chunk]], token: int, capacity: int) -> None:
    """Fills the shorter text with `token` up to the other's length, in place."""
    flat = [[token for chunk in chunks for token in chunk] for chunks in texts]
    longest = max(map(len, flat))
    for side, tokens in enumerate(flat):
        tokens += [(token, 1.0)] * (longest - len(tokens))
        texts[side] = [tokens[start : start + capacity] for start in range(0, longest + 1, capacity)]


def _encode_chunk(
    pipe: Any, tokenizer: Any, encoder: Any, chunk: Chunk, length: int, clip_skip: int | None
) -> tuple[Tensor, Tensor]:
    """Hidden states (1, L, D), weighted, and pooled output (1, P); filled up to `length` tokens."""
    vectors = {place: token for place, (token, _) in enumerate(chunk, 1) if isinstance(token, Tensor)}
    said = [0 if isinstance(token, Tensor) else token for token, _ in chunk]
    ids = [tokenizer.bos_token_id, *said, tokenizer.eos_token_id]
    filler = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids += [filler] * (length - len(ids))
    with inversion.put_in(encoder, vectors):
        output = encoder(torch.tensor([ids], device=pipe._execution_device), output_hidden_states=True)
    usual = 2 if hasattr(pipe, "text_encoder_2") else 1
    layers = len(output.hidden_states) - 1
    if clip_skip and clip_skip + usual > layers:
        raise RequestError(f"Clip skip is too large: this model's text encoders have {layers} layers.")
    if usual == 2:
        states = output.hidden_states[-2 if clip_skip is None else -(clip_skip + 2)]
    elif clip_skip is None:
        states = output.last_hidden_state
    else:
        # transformers has flattened the text model in some versions.
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        states = norm(output.hidden_states[-(clip_skip + 1)])
    if any(weight != 1 for _, weight in chunk):
        # float16 as in the reference, so that its prompts give its pictures: 1.2 is 1.2002.
        weights = torch.ones(len(ids), dtype=torch.float16)
        weights[1 : len(chunk) + 1] = torch.tensor([weight for _, weight in chunk], dtype=torch.float16)
        last = states[:, -1:]
        states = last + weights.to(states)[:, None] * (states - last)
    return states, output[0]
