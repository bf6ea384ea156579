"""The labelling service: a teacher, whatever runs it, and the persons whom it knows."""
