"""A request whose prompts hold words alone: LoRA tags become LoRAs, what means nothing here is left out and named."""

from pathlib import Path

from instantid_demo import styles, syntax
from instantid_demo.models import addons
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
    style = styles.find(request.style, styles.load(settings.style_folders))
    prompt, negative, look, avoided = (
        taken_apart(text, request, settings, elsewhere=elsewhere)
        for text in (
            request.prompt,
            request.negative_prompt,
            style.prompt.replace(styles.PLACEHOLDER, ""),
            style.negative,
        )
    )
    notes = syntax.notes([prompt, negative, look, avoided])
    loras, missing = list(request.lora), list[str]()
    given = {_stem(entry.source) for entry in loras}
    for name, weight in [*prompt.loras, *look.loras]:
        source = name if elsewhere else addons.named(name, settings)
        if _stem(name) in given:
            continue
        if source is None or len(loras) == MAX_LORAS:
            missing.append(name)
            continue
        given.add(_stem(name))
        # A weight beyond the range would refuse the whole request, which the user may not even have written.
        loras.append(Lora(source=source, weight=min(max(weight, -2.0), 2.0)))
    if missing:
        how = f"at most {MAX_LORAS} at once, from the models folder's {addons.LORAS}"
        notes.append(f"LoRAs named in the prompt that are not here were left out: {syntax.listed(missing)} ({how}).")
    if negative.loras or avoided.loras:
        unused = syntax.listed([name for name, _ in [*negative.loras, *avoided.loras]])
        notes.append(f"LoRAs have no meaning among what to avoid and were left out: {unused}.")
    changed = {"prompt": prompt.text, "negative_prompt": negative.text, "lora": tuple(loras)}
    return request.model_copy(update=changed), notes


def taken_apart(text: str, request: GenerationRequest, settings: Settings, *, elsewhere: bool = False) -> syntax.Said:
    """One of a request's texts, or of its style's; plain words come back as they are."""

    def is_embedding(name: str) -> bool:
        # Looked for only where a text names one: most do not.
        return elsewhere or addons.plain_name(name) in addons.embeddings(settings.models)

    return syntax.read(text, is_embedding, request.steps)


def _stem(source: str) -> str:
    name = Path(source.replace("\\", "/")).name.lower()
    return name.rpartition(".")[0] if name.endswith(addons.SUFFIXES) else name
