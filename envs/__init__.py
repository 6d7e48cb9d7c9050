"""The real world: environments behind one protocol, and the collection of episodes from them."""
