"""devil-profile: how long everything takes, where the time goes, and how far engines and precisions are apart."""
