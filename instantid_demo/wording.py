"""A request whose prompts hold words alone: LoRA tags become LoRAs, what means nothing here is left out and named."""

from pathlib import Path

from instantid_demo import syntax
from instantid_demo.method import embeddings
from instantid_demo.models import lora
from instantid_demo.request import MAX_LORAS, GenerationRequest, Lora
from instantid_demo.settings import Settings


def understood(
    request: GenerationRequest, settings: Settings, *, elsewhere: bool = False
) -> tuple[GenerationRequest, list[str]]:
    """The request with plain prompts, and sentences on what was left out or replaced.

    Args:
        request: its prompts may come from another tool.
        settings: where LoRAs and embeddings lie.
        elsewhere: it is drawn by another program, which has its own: LoRAs and embeddings that are not here stay.
    """
    here = embeddings.here(settings.models)

    def is_embedding(name: str) -> bool:
        return elsewhere or embeddings.plain_name(name) in here

    prompt = syntax.read(request.prompt, is_embedding, request.steps)
    negative = syntax.read(request.negative_prompt, is_embedding, request.steps)
    prompt.left_out += negative.left_out
    prompt.replaced += negative.replaced
    prompt.joined |= negative.joined
    notes = prompt.notes()
    loras, missing = list(request.lora), list[str]()
    given = {_stem(entry.source) for entry in loras}
    for name, weight in prompt.loras:
        source = name if elsewhere else lora.named(name, settings)
        if _stem(name) in given:
            continue
        if source is None or len(loras) == MAX_LORAS:
            missing.append(name)
            continue
        given.add(_stem(name))
        # A weight beyond the range would refuse the whole request, which the user may not even have written.
        loras.append(Lora(source=source, weight=min(max(weight, -2.0), 2.0)))
    if missing:
        how = f"at most {MAX_LORAS} at once, from the models folder's {lora.OWN}"
        notes.append(f"LoRAs named in the prompt that are not here were left out: {syntax.listed(missing)} ({how}).")
    if negative.loras:
        unused = syntax.listed([name for name, _ in negative.loras])
        notes.append(f"LoRAs have no meaning among what to avoid and were left out: {unused}.")
    changed = {"prompt": prompt.text, "negative_prompt": negative.text, "lora": tuple(loras)}
    return request.model_copy(update=changed), notes


def _stem(source: str) -> str:
    name = Path(source.replace("\\", "/")).name.lower()
    return name.rpartition(".")[0] if name.endswith(lora.SUFFIXES) else name
