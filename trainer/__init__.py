"""Collect noise pairs, fit NPNets, measure what they do: everything that runs without ComfyUI."""
