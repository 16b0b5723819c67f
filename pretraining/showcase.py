"""The 64 prompts of the sheet that the README shows; chosen before any picture was seen, one seed each."""

PROMPTS = tuple(
    line.strip()
    for line in """
a fox in a snowy forest
a panda in outer space
an owl in a dark wood
a penguin in an ice village
a lion in a savanna
a butterfly in a meadow
a shark in deep water
a frog in rippled water
a strawberry in a desert
a pizza in a beach
a pineapple in a tropical bay
an ice cream in a beach at sunset
a doughnut in the milky way
a hamburger in a shopping mall
a carrot in brown hills with mushrooms
a cake in a ballroom
a police car in a neon city
a sailboat in the sea
a tractor in green hills
a bullet train in snowy mountains
a guitar in a warehouse
a camera in a photo studio
an umbrella in a winter night
a robot in an alien ruin
a trumpet in a ballroom
a crown in a dungeon
a candle in a cave
a telescope in a green nebula
a sunflower in a misty field
a cactus in a desert with cacti
a christmas tree in a winter night
a church in autumn hills
a person
a person with red hair in a forest
a person with glasses and black hair wearing a yellow shirt in a city street
a person with a beard and brown hair in a winter night
a person with pink hair in a mushroom village
a person with blue hair wearing a white shirt in a lobby
a person with blond hair wearing a green shirt in a golden sky
a person with white hair and a beard in a planet at sunrise
a fox and a person with red hair in a forest
a cat and a dog in an empty room
a bee and a sunflower in a meadow
a person with green hair and a guitar in an arena
a bear on the left and a tent on the right in an autumn forest
a rooster left of a house in green hills
an apple on the left and a banana on the right in a green park
a person with black hair on the left and a horse on the right in a savanna
starry blue oil painting of a horse in a meadow
red ink painting of an owl in a cave
a pale watercolor of a sailboat in the sea
stained glass painting of a person with blond hair in green hills
a rose, pastel painting
a sepia engraving of a ship in the sea
a cubist painting of a cat in a city street
a bold night poster of a tiger in a neon city
a charcoal sketch of an elephant
a woven tapestry of a deer in a forest
a person with brown hair, warm pencil drawing
a swirling impressionist painting of a house and a tree
an animal
a vehicle in a beach
a place
an alien ruin
""".strip().splitlines()
)
