"""File and exchange formats: COCO annotations and results, and the ONNX checks that need no ONNX package."""
