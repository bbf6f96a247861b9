"""Small layers around the experts of a layer, for few rows."""
