"""The student distiller: jobs that distil students from a teacher, and the workers that do them."""
