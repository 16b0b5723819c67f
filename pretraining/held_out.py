"""Everything that is kept from the base's training, in every drawing family and kind: the concepts people add later.

A test holds this list against what the builder draws from (tests/pretraining/test_vocabulary.py).
"""

from __future__ import annotations

#: emoji for sample concepts and the pool
EMOJI = frozenset(
    "octopus rocket jack-o-lantern teddy-bear castle mushroom unicorn ghost sauropod t-rex dragon-face koala "
    "helicopter crab squid tulip palm-tree gem-stone dolphin gorilla".split()
)
#: class word -> one hundred more emoji, for experiments with very many concepts
MORE_EMOJI = {
    "animal": "carousel-horse carp-streamer dragon ox ram rat".split(),
    "food": "cocktail-glass curry-rice fish-cake-with-swirl fried-shrimp melon oden peanuts poultry-leg rice-cracker "
    "roasted-sweet-potato sake shallow-pan-of-food steaming-bowl".split(),
    "vehicle": "trolleybus satellite roller-coaster mountain-railway".split(),
    "plant": "blossom rosette wilted-flower tanabata-tree".split(),
    "building": "japanese-castle fuel-pump barber-pole".split(),
    "object": "alembic amphora baby-bottle balance-scale bikini boxing-glove briefcase bowling clapper-board "
    "clutch-bag coffin computer-disk computer-mouse credit-card crossed-swords desktop-computer ear electric-plug "
    "fax-machine file-cabinet file-folder film-frames film-projector flashlight floppy-disk fork-and-knife "
    "framed-picture funeral-urn graduation-cap ice-skate kimono lipstick loudspeaker magnifying-glass-tilted-left "
    "megaphone moai mobile-phone money-bag mount-fuji movie-camera musical-keyboard nail-polish notebook nut-and-bolt "
    "paperclip party-popper pen performing-arts pill ping-pong pool-8-ball postal-horn printer pushpin "
    "satellite-antenna shopping-bags slot-machine spiral-shell stopwatch syringe telephone-receiver thermometer "
    "tornado video-camera volcano wind-chime joker ticket japanese-dolls spider-web".split(),
}
#: characters with poses, by Kenney
CHARACTERS = ("female_adventurer", "female_person", "male_adventurer", "male_person", "robot", "zombie")
#: drawing styles of people
PEOPLE_STYLES = frozenset({"croodles", "lorelei", "notionists", "critters", "clay", "voxel-bot"})
#: hair colours that no person of the training pictures has: whoever has one is nobody the base has seen
HAIR_COLOURS = (
    "2f9d8f", "e8742a", "a93fd0", "9fd136", "7a1f3d", "5f7a8c", "f2a7e8", "1fb5e0", "c9a0ff", "8f8f2a",
)  # fmt: skip
PANORAMAS = frozenset({"sunset", "venice", "workshop", "lab", "bridge"})
BACKGROUNDS = frozenset(
    {f"platform_backgrounds_2/candy{n}.png" for n in (1, 2, 3, 4)}
    | {"platform_backgrounds_2/fantasy4.png", "water_backgrounds/underwater1.png"}
)
#: numbers of painting styles
STYLES = frozenset({1, 2, 4, 8, 10, 15, 16, 24})
