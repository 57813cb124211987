"""What is said of an action: figures and words, and their layout for each kind of receiver. Nothing here sends."""
