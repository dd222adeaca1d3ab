"""Training and evaluation data: synthetic clips and annotation records. NumPy, Pillow and PyAV only, never torch."""
