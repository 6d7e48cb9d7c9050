"""What every world model must keep, as checks that anybody can put a model of their own through."""
