"""Export trained models to ONNX, torch.export and 8 bits; each file is compared with the model before it is kept."""
