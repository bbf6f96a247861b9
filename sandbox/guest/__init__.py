"""Code that runs in the template and in the kernels forked from it; it never imports `host`."""
