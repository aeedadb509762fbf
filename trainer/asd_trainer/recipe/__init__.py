"""What a run is made of: every key of a recipe, with its bounds, and the recipes that come with the program."""
