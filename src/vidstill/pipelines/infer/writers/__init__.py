"""Writers of features, predictions and detections, one file per format."""
