"""The bundled storyteller: what made `pyllama/data/storyteller.gguf`. See README.md."""
