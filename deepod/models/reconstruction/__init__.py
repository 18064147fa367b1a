"""Methods that reconstruct a row: anomalies are reconstructed badly."""
