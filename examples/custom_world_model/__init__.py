"""A world model of your own: one Python file and one YAML file. `docs/plug_in_a_world_model.md` walks through them."""
