"""optograph: trace workflows as graphs, send feedback back, and improve what the graph blames."""
