"""Training of a server's network by clients with smaller ones, on their own examples, in this process or on Ray."""
