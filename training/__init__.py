"""Recipes, losses and the training loop. Needs torch; nothing that runs on a robot imports it."""
