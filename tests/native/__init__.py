"""The native core without Python, under the compiler's sanitizers."""
