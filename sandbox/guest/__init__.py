"""What runs in the template and in the kernels forked from it; never imports `host`."""
