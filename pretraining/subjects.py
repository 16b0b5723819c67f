"""The subjects: words, emoji names that all six drawing families have, class words and synonyms.

A row is `word` where the emoji is called so too (blanks for hyphens), else `word=emoji-name`. Of drawings that look
nearly alike (books and book, taxi and car) one is here.
"""

from __future__ import annotations

_ROWS = {
    "animal": """
        fox, cat, dog, bear, lion, elephant, horse, rabbit, panda, penguin, owl, duck, frog, turtle, crocodile,
        snake, shark, whale, butterfly, snail, spider, rooster, wolf, fish, bat, boar, camel, chipmunk, cow, deer,
        dove, eagle, sheep=ewe, goat, hamster, chick=hatching-chick, bee=honeybee, ladybug=lady-beetle, leopard,
        lizard, monkey, mouse, pig, poodle, rhinoceros, scorpion, shrimp, tropical fish, turkey, blowfish, ant, bug,
        tiger, buffalo=water-buffalo
    """,
    "food": """
        apple=red-apple, green apple, banana, grapes, strawberry, watermelon, pineapple, carrot, pizza, hamburger,
        doughnut, cake=birthday-cake, lemon, tomato, cherries, avocado, bacon, baguette=baguette-bread, bread,
        burrito, candy, cheese=cheese-wedge, chestnut, chocolate=chocolate-bar, cookie, croissant, cucumber,
        custard, dango, egg=cooking, eggplant, french fries, salad=green-salad, honey=honey-pot, hot dog, ice cream,
        kiwi=kiwi-fruit, lollipop, pancakes, peach, pear, popcorn, potato, rice=cooked-rice, rice ball, shortcake,
        spaghetti, sushi, taco, tangerine, corn=ear-of-corn, pepper=hot-pepper, milk=glass-of-milk,
        coffee=hot-beverage, cocktail=tropical-drink, wine=wine-glass, beer=beer-mug, meat=meat-on-bone
    """,
    "vehicle": """
        car=automobile, bus, bicycle, fire engine, tractor, airplane, sailboat, train=locomotive, ambulance,
        truck=delivery-truck, canoe, ferry, motorcycle, scooter=motor-scooter, kick scooter, police car, racing car,
        ship=passenger-ship, speedboat, tram=tram-car, monorail, bullet train
    """,
    "object": """
        umbrella, balloon, guitar, drum, clock=alarm-clock, camera, television, crown, trophy, backpack, bell, bed,
        lamp=light-bulb, candle, chair=seat, sofa=couch-and-lamp, door, key, lock=locked, hammer, wrench, axe=pick,
        pencil, book=closed-book, scissors, telephone, laptop, radio, microphone, trumpet, violin, saxophone,
        headphones=headphone, gift=wrapped-gift, bottle=bottle-with-popping-cork, spoon, knife=kitchen-knife,
        sword=dagger, shield, anchor, hourglass=hourglass-not-done, watch, sunglasses, hat=top-hat, dress,
        t shirt, jeans, necktie, shoe=running-shoe, high heels=high-heeled-shoe, purse, ring, ribbon, soccer ball,
        basketball, football=american-football, baseball, tennis ball=tennis, dice=game-die, joystick, telescope,
        microscope, toilet, bathtub, envelope, package, newspaper, paintbrush, palette=artist-palette,
        crystal ball, bomb, battery, gear, globe=globe-showing-europe-africa, fishing pole, skis, fountain,
        ferris wheel, tent, trash can=wastebasket, postbox, lantern=red-paper-lantern, snowflake, fire,
        star=glowing-star, rainbow, cloud, skull, alien, statue=statue-of-liberty, barrel=oil-drum, shopping cart,
        snowman, robot
    """,
    "plant": """
        sunflower, cactus, rose, tree=deciduous-tree, fir=evergreen-tree, christmas tree, maple leaf,
        clover=four-leaf-clover, seedling, hibiscus, bouquet, bamboo=pine-decoration
    """,
    "building": """
        house, church, hospital, factory, hotel, stadium, mosque, tower=tokyo-tower, temple=classical-building,
        shrine=shinto-shrine, barn=derelict-house, circus=circus-tent
    """,
}

#: other words that captions use for a subject now and then
SYNONYMS: dict[str, tuple[str, ...]] = {
    "rabbit": ("bunny",), "pig": ("piglet",), "ladybug": ("ladybird",), "dog": ("puppy",), "cat": ("kitten",),
    "doughnut": ("donut",), "hamburger": ("burger",), "french fries": ("fries",), "eggplant": ("aubergine",),
    "corn": ("maize",), "cookie": ("biscuit",), "tangerine": ("mandarin",), "pepper": ("chili",),
    "airplane": ("plane",), "bicycle": ("bike",), "car": ("automobile",), "motorcycle": ("motorbike",),
    "fire engine": ("fire truck",), "train": ("locomotive",), "truck": ("lorry",), "tram": ("streetcar",),
    "television": ("tv",), "sofa": ("couch",), "telephone": ("phone",), "gift": ("present",),
    "clock": ("alarm clock",), "lamp": ("light bulb",), "backpack": ("rucksack",), "necktie": ("tie",),
    "trash can": ("bin",), "postbox": ("mailbox",), "package": ("parcel",),
    "fir": ("pine tree",), "rose": ("red rose",), "church": ("chapel",),
}  # fmt: skip

#: words that take no article: plurals and what is poured or heaped
WITHOUT_ARTICLE = frozenset(
    "grapes, cherries, bacon, bread, candy, chocolate, french fries, fries, honey, pancakes, popcorn, rice, spaghetti, "
    "sushi, corn, maize, milk, coffee, wine, beer, meat, scissors, headphones, sunglasses, jeans, "
    "high heels, skis, dice, fire, bamboo, cheese".split(", ")
)


def _subjects() -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for kind, text in _ROWS.items():
        for row in text.replace("\n", " ").split(","):
            word, _, name = (" ".join(part.split()) for part in row.partition("="))
            found[word] = (name or word.replace(" ", "-"), kind)
    return found


#: subject word -> (emoji name, class word)
SUBJECTS: dict[str, tuple[str, str]] = _subjects()
