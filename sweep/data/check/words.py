"""What the words of a caption are about. Imports no torch.

Small lists of plain English and of the tags that taggers write: enough to tell a body's traits from clothes and places,
not to understand a sentence. What they don't know is treated as unknown, never as a fault.
"""

from __future__ import annotations

import re

_BODY = ("hair|haired|hairstyle|bangs|ponytail|twintails|braid|braids|bald|beard|bearded|goatee|moustache|mustache|"
         "stubble|eyes|eyed|eyebrows|eyelashes|skin|skinned|freckles|freckled|dimples|scar|mole|tattoo|tattoos|nose|"
         "lips|chin|cheeks|cheekbones|jaw|forehead|wrinkles|complexion|fur|furry|muzzle|snout|tail|paws|ears")
_CLOTHES = ("wearing|wears|dressed|clothes|clothing|shirt|t-shirt|tshirt|tee|hoodie|sweater|sweatshirt|jumper|cardigan|"
            "jacket|coat|suit|blazer|vest|waistcoat|dress|skirt|gown|blouse|top|uniform|armor|kimono|robe|overalls|"
            "pants|trousers|jeans|shorts|swimsuit|bikini|tie|scarf|shawl|collar|turtleneck|topless|shirtless|naked|"
            "nude|bare-chested|apron|costume|polo|tank")
_PLACE = ("background|indoors|indoor|outdoors|outdoor|outside|inside|beach|forest|woods|city|street|town|mountain|"
          "mountains|desert|room|bedroom|bathroom|kitchen|office|studio|park|garden|field|grass|snow|water|sea|ocean|"
          "lake|river|pool|bar|cafe|restaurant|car|train|bus|boat|wall|window|bench|couch|sofa|bed|chair|table|stage|"
          "stairs|road|sidewalk|bridge|house|home|building|sky|night|sunset|porch|yard|gym|library|shop|store|floor|"
          "deck|driveway|rock|rocks|tree|trees|leaves")
_FRAMING = ("close-up|closeup|close|headshot|portrait|selfie|half-body|full-body|upper|cowboy|bust|profile|wide|full|"
            "view|shot|facing|looking|side")
_EMPTY = ("a|an|the|and|or|of|in|on|at|by|to|for|from|with|without|is|are|was|his|her|their|its|he|she|it|they|this|"
          "that|there|some|very|up|down|next|near|over|under|while|who|which|one|as|into|wearing|wears|dressed|holding|"
          "sitting|standing|looking|has|having|being|behind|front|background|photo|photograph|picture|image|"
          "photography|photorealistic|solo|1girl|1boy|realistic|male|female")
_KIND = ("person|people|man|men|woman|women|boy|girl|guy|lady|gentleman|human|child|kid|baby|dog|dogs|puppy|cat|cats|"
         "kitten|animal|character|subject|object|style|thing")

BODY, CLOTHES, PLACE, FRAMING, EMPTY, KIND = (
    frozenset(words.split("|")) for words in (_BODY, _CLOTHES, _PLACE, _FRAMING, _EMPTY, _KIND))
PEOPLE = KIND - {"dog", "dogs", "puppy", "cat", "cats", "kitten", "animal", "subject", "object", "style", "thing"}

_WORD = re.compile(r"[a-z0-9][a-z0-9'’-]*")


def words_of(text: str) -> list[str]:
    """Lower-case words; a tagger's "blue_hair" is two."""
    return _WORD.findall(text.lower().replace("_", " "))


def says(text: str, words: frozenset[str]) -> bool:
    return not words.isdisjoint(words_of(text))
