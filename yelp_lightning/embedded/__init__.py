"""Reviews written for this project (CC0): 650 of them, equally over the five stars."""
