"""What a month will come to, by methods that can be held against what came. They decide nothing."""
