"""The studio: a page that shows why a list is as it is."""
