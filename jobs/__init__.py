"""The producer's side, and all that both sides share. Never imports torch or transformers."""
