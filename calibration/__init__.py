"""Ranges and quantisation from video clips."""
