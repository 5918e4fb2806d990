"""The shapes world as its preference models know it: captions, and detectors that compare pictures with them.

What draws its pictures, trains its models and measures in it is in the trainer.
"""
