"""Folders of images as data sets: ``<dir>/{train,test}/<class>/``."""
