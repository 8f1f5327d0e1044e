from __future__ import annotations

import pytest

from synfer.faces.captions import TEMPLATES
from synfer.faces.expression_prompts import prompts_of
from synfer.faces.expressions import EXPRESSIONS


@pytest.mark.parametrize(("prompts", "count"), [("canonical", 1), ("templates", 5), ("actions", 3), ("all", 8)])
def test_sets(prompts: str, count: int) -> None:
    found = prompts_of(prompts, EXPRESSIONS)  # type: ignore[arg-type]
    assert list(found) == list(EXPRESSIONS) and {len(sentences) for sentences in found.values()} == {count}
    every = [sentence for sentences in found.values() for sentence in sentences]
    assert len(set(every)) == len(every) and not any("{" in sentence for sentence in every)


def test_in_the_order_of_the_names() -> None:
    assert list(prompts_of("templates", ["sad", "happy"])) == ["sad", "happy"]
    assert prompts_of("canonical", ["anger"])["anger"] == [TEMPLATES[0].format("angry")]
    assert "raised cheeks and pulled-up lip corners" in prompts_of("actions", ["happy"])["happy"][0]


def test_ones_own_by_name() -> None:
    own = {"Happiness": "a grin", "sadness": ["tears", "a drooping mouth"], "fear": "wide eyes"}
    assert prompts_of(own, ["sad", "happy"]) == {"sad": ["tears", "a drooping mouth"], "happy": ["a grin"]}
    with pytest.raises(ValueError, match="found no sentence for 'anger'"):
        prompts_of(own, ["happy", "anger"])
    with pytest.raises(ValueError, match="prompts: found 'five', expected canonical"):
        prompts_of("five", ["happy"])  # type: ignore[arg-type]
