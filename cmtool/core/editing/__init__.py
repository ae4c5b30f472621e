"""Editing with a model that was trained for none of it: operators, masks, tiles, constrained sampling."""
