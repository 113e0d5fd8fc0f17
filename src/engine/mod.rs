//! Models: what loads a file, turns pixels into its input, runs it, and turns its output into boxes.
