"""Studies: each file sets the config values of one experiment."""
