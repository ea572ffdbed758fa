"""Configs: pure data. One file a study; base.py explains every key."""
