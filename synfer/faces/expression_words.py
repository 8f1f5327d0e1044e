"""Words that name an expression, and the same caption without them.

A generator that is steered by action units learns from captions that do not tell the expression: where they do, the
text explains the face and the action units are not listened to.
"""

from __future__ import annotations

import re

EXPRESSION_WORDS: dict[str, tuple[str, ...]] = {
    "happy": (
        *("happy", "happier", "happily", "happiness", "joy", "joyful", "joyfully", "joyous", "cheerful", "cheerfully"),
        *("cheery", "glad", "gladly", "gleeful", "gleefully", "delight", "delighted", "elated", "amused", "amusement"),
        *("smile", "smiles", "smiled", "smiling", "smiley", "grin", "grins", "grinned", "grinning", "beaming"),
        *("laugh", "laughs", "laughed", "laughing", "laughter"),
    ),
    "sad": (
        *(
            "sad",
            "sadder",
            "sadly",
            "sadness",
            "unhappy",
            "unhappily",
            "sorrow",
            "sorrowful",
            "sorrowfully",
            "mournful",
        ),
        *("gloomy", "depressed", "miserable", "miserably", "melancholy", "melancholic", "dejected", "upset", "tearful"),
        *("tearfully", "cry", "cries", "cried", "crying", "weep", "weeps", "wept", "weeping", "sob", "sobs", "sobbing"),
    ),
    "surprise": (
        *("surprise", "surprised", "surprisedly", "shock", "shocked", "astonished", "astonishment", "amazed"),
        *("amazement", "startled", "stunned", "suprise", "suprised"),
    ),
    "fear": (
        *("fear", "fearful", "fearfully", "afraid", "scared", "frightened", "terrified", "terror", "horrified"),
        *("panicked", "anxious", "anxiously", "anxiety", "worried"),
    ),
    "disgust": ("disgust", "disgusted", "disgustedly", "repulsed", "repulsion", "revolted", "revulsion"),
    "anger": (
        *("anger", "angered", "angry", "angrier", "angrily", "furious", "furiously", "fury", "rage", "enraged", "mad"),
        *("irate", "annoyed", "annoyance", "irritated", "frown", "frowns", "frowned", "frowning"),
        *("scowl", "scowls", "scowled", "scowling"),
    ),
    "contempt": (
        *("contempt", "contemptuous", "contemptuously", "scorn", "scornful", "scornfully", "disdain", "disdainful"),
        *("sneer", "sneers", "sneered", "sneering", "smirk", "smirks", "smirked", "smirking"),
    ),
    "neutral": ("neutral", "neutrally", "expressionless"),
}
"""Expression → the words that name it or what everybody reads as it, in lower case."""

_OTHER_THINGS = r"(?!\s+(?:background|backdrop|colou?r|tone|shade|wall|light|palette|clothing|shirt|dress)|-)"
_WORDS = "|".join(
    word + (_OTHER_THINGS if word == "neutral" else "") for words in EXPRESSION_WORDS.values() for word in words
)
_W = rf"\b(?:{_WORDS})\b"
_ADVERB = (
    r"(?:(?:very|slightly|somewhat|quite|so|rather|extremely|really|mildly|deeply|visibly|clearly|a\s+bit|a\s+little)"
    r"\s+)*"
)
_SEVERAL = rf"{_ADVERB}{_W}(?:(?:\s*,\s*|\s*,?\s+(?:and|or|but)\s+){_ADVERB}{_W})*"
_ING = r"\b(?:smiling|grinning|beaming|laughing|crying|weeping|sobbing|frowning|scowling|sneering|smirking)\b"
_AT = (
    r"(?:\s+\w+ly)?(?:\s+(?:at|for|to|towards?|into)\s+(?:the|a)\s+(?:camera|viewer|lens|photo|picture|photographer))?"
)
_FACE = r"(?:facial\s+)?(?:expression|look|face|eyes|mood|emotion|gaze|demeanou?r)"
_ON_FACE = r"(?:\s+(?:on|across|upon|in)\s+(?:his|her|their|its|the|a)\s+(?:face|faces|lips|eyes))?"
_NO_NOUN = (
    r"(?:at|for|to|towards?|into|in|on|and|or|but|with|while|as|because|from|of|by|about|is|are|was|were|near|over)\b"
)
_BE = r"(?:is|are|was|were|looks?|looked|appears?|appeared|seems?|seemed|feels?|felt|be|being|been)"
_NOUNS = (
    "happiness|joy|delight|amusement|laughter|sadness|sorrow|surprise|shock|astonishment|amazement|fear|terror|anxiety|"
    "disgust|repulsion|revulsion|anger|fury|rage|annoyance|contempt|scorn|disdain"
)

_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE), put)
    for pattern, put in (
        # with a look of anger and clenched teeth → with clenched teeth
        (
            rf"\bwith\s+(?:an?|the|his|her|their)\s+(?:\w+\s+)?(?:{_FACE}|sense|feeling|air)\s+of\s+(?:\w+\s+)?"
            rf"{_SEVERAL}{_ON_FACE}\s+and\s+(?=\w)",
            "with ",
        ),
        (
            rf",?\s*\bwith\s+(?:an?|the|his|her|their)\s+(?:\w+\s+)?(?:{_FACE}|sense|feeling|air)\s+of\s+(?:\w+\s+)?"
            rf"{_SEVERAL}{_ON_FACE}",
            "",
        ),
        # with a happy expression, with a big smile on her face
        (
            rf"\bwith\s+(?:(?:an?|the|his|her|their)\s+)?(?:(?!(?:and|{_BE})\b)\w+\s+){{0,2}}?{_SEVERAL}(?:\s+{_FACE})?{_ON_FACE}"
            r"\s+and\s+(?=\w)",
            "with ",
        ),
        (
            rf",?\s*\bwith\s+(?:(?:an?|the|his|her|their)\s+)?(?:(?!(?:and|{_BE})\b)\w+\s+){{0,2}}?{_SEVERAL}"
            rf"(?:\s+{_FACE})?{_ON_FACE}(?!\s+(?!and\b|at\b|in\b|on\b|while\b|wearing\b|near\b|as\b|with\b)\w)",
            "",
        ),
        # wearing a frown and glasses → wearing glasses; short hair and a smile → short hair; in anger
        (rf"\b(wearing|showing|has|having)\s+(?:an?|the)\s+(?:\w+\s+)?{_W}{_ON_FACE}\s+and\s+(?=\w)", r"\1 "),
        (rf",?\s+and\s+(?:an?|the|his|her|their)\s+(?:\w+\s+)?{_W}(?:\s+{_FACE})?{_ON_FACE}(?=\s*[.,;!?]|\s*$)", ""),
        (rf",?\s*\b(?:in|out\s+of|for)\s+(?:pure\s+)?(?:{_NOUNS})\b", ""),
        # is smiling and wearing a hat → is wearing a hat
        (rf"{_ING}{_AT}\s*,?\s+and\s+(?=\w+ing\b)", ""),
        # who looks happy, who is smiling at the camera
        (rf",?\s*\b(?:who|that|which)\s+{_BE}\s+{_SEVERAL}{_AT}", ""),
        (
            rf",?\s*\b(?:who|that|which)\s+(?:smiles|grins|laughs|cries|weeps|sobs|frowns|scowls|sneers|smirks)\b{_AT}",
            "",
        ),
        (rf",?\s*\b(?:looking|appearing|seeming|feeling)\s+{_SEVERAL}", ""),
        # a woman is smiling in a park → a woman in a park
        (rf"\s+(?:is|are|was|were)\s+{_ING}{_AT}(?=\s*[.,;!?]|\s*$|\s+(?:in|on|near|next|beside|behind|under)\b)", ""),
        (rf",?\s+and\s+(?:is\s+|are\s+)?{_ING}{_AT}", ""),
    )
)
_BEFORE_A_NOUN = re.compile(
    rf"(?P<before>\b{_BE}\s+)?(?:\b(?P<article>an?)\s+)?{_SEVERAL}"
    rf"(?:-(?:looking|faced|eyed))?[,\s]+(?!{_NO_NOUN})(?=(?P<next>[A-Za-z]))",
    re.IGNORECASE,
)
_AFTER_A_NOUN = re.compile(rf"(?<!\bis)(?<!\bare)(?<!\bwas)(?<!\bwere),?\s+{_ING}{_AT}", re.IGNORECASE)
_ADVERBS = re.compile(
    r"\s*\b(?:" + "|".join(w for ws in EXPRESSION_WORDS.values() for w in ws if w.endswith("ly")) + r")\b",
    re.IGNORECASE,
)
_NAMED = re.compile(_W, re.IGNORECASE)
_SENTENCES = re.compile(r"(?<=[.!?;])\s+")
_LEFT_OVER = re.compile(r"(?:[\s,;:-]|\b(?:and|or|but|with|who|that|which|is|are|a|an|the|of|in)\b)+(?=[.!?]?$)", re.I)
_ADJECTIVES_IN_S = {"joyous", "furious", "anxious", "contemptuous", "expressionless"}
_NO_ADJECTIVES = frozenset(_NOUNS.split("|")) | {
    word for words in EXPRESSION_WORDS.values() for word in words if word.endswith("s") and word not in _ADJECTIVES_IN_S
}


def names_expression(caption: str) -> bool:
    """Says whether a caption has a word of :data:`EXPRESSION_WORDS`, in whatever case."""
    return _NAMED.search(caption) is not None


def without_expression(caption: str) -> str | None:
    """Returns a caption without the words that name an expression.

    Phrases that do nothing else are taken out ("with a happy expression", "who looks sad", "an angry" before a noun). A
    sentence that cannot do without such a word is left out whole.

    Returns:
        the caption itself where it names none; None where nothing of it would be left.
    """
    if not names_expression(caption):
        return caption
    kept = [_rewritten(sentence) for sentence in _SENTENCES.split(caption.strip())]
    return " ".join(sentence for sentence in kept if sentence).rstrip(" ;") or None


def _rewritten(sentence: str) -> str:
    if not names_expression(sentence):
        return sentence
    text = sentence
    for pattern, put in _RULES:
        text = pattern.sub(put, text)
    text = _BEFORE_A_NOUN.sub(_article, text)
    text = _AFTER_A_NOUN.sub("", text)
    text = _ADVERBS.sub("", text)
    text = re.sub(r"\s+([,.;!?])", r"\1", re.sub(r"\s{2,}", " ", text)).strip(" ,;")
    text = _LEFT_OVER.sub("", text)
    if names_expression(text) or len(re.findall(r"\w+", text)) < 2:
        return ""
    return text[0].upper() + text[1:] if sentence.strip()[0].isupper() else text


def _article(found: re.Match[str]) -> str:
    """Takes adjectives out before a noun; not after "is", where they are all that is said, nor a verb or a noun."""
    words = {word.lower() for word in re.findall(r"\w+", found[0])}
    if found["before"] or words & _NO_ADJECTIVES:
        return found[0]
    if not found["article"]:
        return ""
    capital = found["article"][0].isupper()
    article = "an " if found["next"].lower() in "aeiou" else "a "
    return article.capitalize() if capital else article
