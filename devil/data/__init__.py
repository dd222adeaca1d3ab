"""Synthetic clips and readers of annotation files."""
