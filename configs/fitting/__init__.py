"""Groups that only `dima fit` knows: in other commands `inference` is the name of a value."""
