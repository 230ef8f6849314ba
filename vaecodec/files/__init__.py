"""Files and folders of files to .vae files and back."""
