"""From a trained checkpoint to an engine file: modules -> ONNX graphs -> checked against torch -> packed."""
