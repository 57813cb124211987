"""Online detectors behind one contract; river lives here and nowhere else."""
