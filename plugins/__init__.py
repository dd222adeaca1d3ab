"""Multi-scale deformable attention: the one custom operator and its lowerings."""
