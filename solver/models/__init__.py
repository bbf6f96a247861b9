"""Where models come from: folders, the local cache of Hugging Face, downloads."""
