"""nlkernels."""
