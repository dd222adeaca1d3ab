"""devil-doctor: what this machine has, what a bundle needs, which engine would run it, what to install otherwise."""
