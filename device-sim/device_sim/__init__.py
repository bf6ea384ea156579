"""The device node: a simulated sensor, recognition, sampling and the self-distillation worker."""
