"""Prediction: files and requests to examples, as training had them, and what a network says of these."""
