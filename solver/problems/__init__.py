"""Sources of problems: files, folders and ids of data sets."""
