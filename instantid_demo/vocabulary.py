"""Words that a small model never learned: they would only disturb it, so they are left out and named.

Pocket learned about seventy words from its captions (`words.json` in its folder). Any other word is to it a row of
letters that it never saw, and a long prompt of those washes the style away. SDXL has no such list.
"""

import re

_WORD = re.compile(r"[^\W\d][\w'-]*")
_LEFT_OVER = re.compile(r"[(\[]\s*(?::[\d.]+)?\s*[)\]]")
_UNMISSED = frozenset(
    {
        *("a", "an", "and", "as", "at", "by", "for", "from", "her", "his", "in", "is", "it", "its", "my", "of", "on"),
        *("or", "our", "the", "their", "to", "with"),
    }
)


def known_part(prompt: str, known: frozenset[str]) -> tuple[str, list[str]]:
    """`prompt` with its known words alone, and the words left out (small ones unnamed).

    Weights such as `(red:1.2)` keep their meaning; punctuation that has lost its words goes.
    """
    left_out: list[str] = []

    def keep(found: re.Match[str]) -> str:
        if found.group() == "BREAK":  # joins parts of a prompt, and is no word
            return ","
        word = found.group().lower()
        if word in known:
            return found.group()
        if word not in _UNMISSED and word not in left_out:
            left_out.append(word)
        return ""

    kept = _WORD.sub(keep, prompt)
    while (less := _LEFT_OVER.sub("", kept)) != kept:
        kept = less
    clauses = (" ".join(clause.split()) for clause in re.split(r"[,.;|\n]+(?!\d)", kept))
    return ", ".join(clause for clause in clauses if _WORD.search(clause)), left_out


def mentions(prompt: str, phrases: frozenset[str]) -> bool:
    """Whether a prompt holds one of these phrases, small letters, as whole words."""
    return any(re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", prompt.lower()) for phrase in phrases)
