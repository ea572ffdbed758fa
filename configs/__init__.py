"""Studies: each file sets values of the config for one experiment."""
