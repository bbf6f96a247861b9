"""Sources of models: folders, the local cache of Hugging Face, downloads."""
