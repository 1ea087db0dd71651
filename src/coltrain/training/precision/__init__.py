"""In what a run computes: chosen from the device, scaled where gradients would vanish, watched."""
