"""Trained models for other programs: as ONNX, as a program of torch, in 8 bits; each compared with ours first."""
