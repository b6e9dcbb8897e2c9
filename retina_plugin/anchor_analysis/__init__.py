"""How the anchors and the boxes of a data set fit each other."""
