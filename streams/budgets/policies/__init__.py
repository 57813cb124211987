"""What is wrong with the policies of a file: references, ladders that do other than they seem to, routes."""
