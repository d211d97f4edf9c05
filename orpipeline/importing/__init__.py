"""Importing answers that others kept: file formats, finding files, and archiving what they hold."""
