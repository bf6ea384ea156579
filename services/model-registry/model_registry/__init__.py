"""The model registry: versions of students, channels that point to them, and devices that ask which one to run."""
